"""The masks of one step's rows, computed at once while a device computes the step."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any, TypeVar

import numpy as np

from engine_worker import host
from engine_worker.backend.candidates import MaskWords
from engine_worker.backend.port import Backend
from engine_worker.backend.profile import profile_of
from engine_worker.constraints.guide import Guide, allow_only
from engine_worker.constraints.llg import MaskThreads, Matcher

MAX_THREADS = 16
"""More threads than sequences use at once gain nothing."""

CORES_IN_USE = 2
"""Cores that the engine thread and the front keep busy while a device computes."""

Wanted = tuple[Guide, Sequence[int]]
"""A guide and the draft after which it is asked for masks."""

Masks = list[list[MaskWords | None]]
"""For each guide what `Guide.masks` returns."""

Ahead = dict[Guide, MaskWords]
"""The masks of the next rows of guides."""

T = TypeVar("T")


def mask_threads(backend: Backend) -> int:
    """The number of threads that compute masks, from the cores that the device leaves free.

    A CPU computes masks after the pass, with the threads of the pass.
    """
    if not profile_of(backend.facts).overlaps:
        return max(1, min(MAX_THREADS, backend.n_threads))
    return max(1, min(MAX_THREADS, host.usable_cores() - CORES_IN_USE))


class StepMasks:
    """Belongs to the engine thread.

    Invariant: from `foresee` or `begin` to `take` another thread may use the guides, and the engine
    thread does not. The masks are rows of two arrays, which the next `foresee` and `begin` write
    again. A step without guides costs nothing, and threads start with the first guide.
    """

    def __init__(self, backend: Backend) -> None:
        n_words = -(-backend.facts.n_vocab // 32)
        self._ahead_words, self._words = _Words(n_words), _Words(n_words)
        self._n_threads = mask_threads(backend)
        self._overlaps = profile_of(backend.facts).overlaps
        self._threads: MaskThreads | None = None
        self._helper: ThreadPoolExecutor | None = None
        self._ahead: Future[Ahead] | None = None
        self._begun: Future[Masks] | Masks = []

    def foresee(self, guides: Sequence[Guide]) -> None:
        """Begin to compute the masks after the tokens that these guides have read: most likely
        those of the next step, which is planned meanwhile. Does nothing after a pass."""
        if not guides or not self._overlaps:
            return
        is_under_way = Event()
        self._ahead = self._beside(self._computed_ahead, guides, is_under_way)
        is_under_way.wait()  # hands over the interpreter's lock, which computing does without

    def begin(self, wanted: Sequence[Wanted]) -> None:
        """Begin to compute the masks for the guides of a step, but for those that are foreseen.
        Called once the step has begun.

        Returns at once beside a device, otherwise when the masks are there.
        """
        if not wanted:
            self._begun = []
        elif self._overlaps:
            self._begun = self._beside(self._computed, wanted, self._ahead)
        else:
            self._begun = self._computed(wanted)

    def take(self) -> Masks:
        """Wait for the masks that were begun, in the order of the guides."""
        begun, self._begun = self._begun, []
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.result()  # also of guides that are in no plan
        return begun.result() if isinstance(begun, Future) else begun

    def _beside(self, compute: Callable[..., T], *arguments: Any) -> Future[T]:
        """Let the one thread that computes masks do this next."""
        if self._helper is None:
            self._helper = ThreadPoolExecutor(1, "masks")
        return self._helper.submit(compute, *arguments)

    def _computed_ahead(self, guides: Sequence[Guide], is_under_way: Event) -> Ahead:
        """Where no forced token is known yet, it is looked for after the mask: a device may compute
        by then, and such masks take little time."""
        words = self._ahead_words.of(len(guides))
        ahead: Ahead = {}
        open_rows: list[tuple[Matcher, int]] = []
        for row, guide in enumerate(guides):
            if isinstance(guide.matcher, Matcher):
                ahead[guide] = words[row]
                if not guide.is_known_to_be_forced:
                    open_rows.append((guide.matcher, row))
        is_under_way.set()
        self._fill(open_rows, words)
        for guide, mask in ahead.items():
            if guide.forced:
                allow_only(guide.forced[0], mask)
        return ahead

    def _computed(self, wanted: Sequence[Wanted], foreseen: Future[Ahead] | None = None) -> Masks:
        ahead: Ahead = {} if foreseen is None else foreseen.result()
        words = self._words.of(len(wanted))
        masks: Masks = []
        open_rows: list[tuple[Matcher, int]] = []
        for row, (guide, draft) in enumerate(wanted):
            first = ahead.get(guide)
            matcher = guide.matcher
            if draft or not isinstance(matcher, Matcher):
                masks.append(guide.masks(draft, first))
            elif first is not None:
                masks.append([first])
            else:
                masks.append([words[row]])
                if guide.forced:
                    allow_only(guide.forced[0], words[row])
                else:
                    open_rows.append((matcher, row))
        self._fill(open_rows, words)
        return masks

    def _fill(self, rows: list[tuple[Matcher, int]], words: MaskWords) -> None:
        if not rows:
            return
        if self._threads is None:
            self._threads = MaskThreads(self._n_threads)
        rows.sort(key=lambda one: id(one[0].lexer))
        self._threads.fill(rows, words)


class _Words:
    """Memory for the masks of a step."""

    def __init__(self, n_words: int) -> None:
        self._words = np.empty((0, n_words), np.int32)

    def of(self, n_rows: int) -> MaskWords:
        """An array with so many rows at least, the same one as long as it is large enough."""
        if len(self._words) < n_rows:
            self._words = np.empty((n_rows, self._words.shape[1]), np.int32)
        return self._words
