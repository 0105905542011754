"""The masks of one step's rows, computed at once while a device computes the step."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

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


def mask_threads(backend: Backend) -> int:
    """The number of threads that compute masks, from the cores that the device leaves free.

    A CPU computes masks after the pass, with the threads of the pass.
    """
    if not profile_of(backend.facts).overlaps:
        return max(1, min(MAX_THREADS, backend.n_threads))
    return max(1, min(MAX_THREADS, host.usable_cores() - CORES_IN_USE))


class StepMasks:
    """Belongs to the engine thread.

    Invariant: from `begin` to `take` another thread may use the guides, and the engine thread does
    not. The masks are rows of one array, which the next `begin` writes again. A step without guides
    costs nothing, and threads start with the first guide.
    """

    def __init__(self, backend: Backend) -> None:
        self._n_words = -(-backend.facts.n_vocab // 32)
        self._words = np.empty((0, self._n_words), np.int32)
        self._n_threads = mask_threads(backend)
        self._overlaps = profile_of(backend.facts).overlaps
        self._threads: MaskThreads | None = None
        self._helper: ThreadPoolExecutor | None = None
        self._begun: Future[Masks] | Masks = []

    def begin(self, wanted: Sequence[Wanted]) -> None:
        """Begin to compute the masks for the guides of a step. Called once the step has begun.

        Returns at once beside a device, otherwise when the masks are there.
        """
        if not wanted:
            self._begun = []
        elif not self._overlaps:
            self._begun = self._computed(wanted)
        else:
            if self._helper is None:
                self._helper = ThreadPoolExecutor(1, "masks")
            self._begun = self._helper.submit(self._computed, wanted)

    def take(self) -> Masks:
        """Wait for the masks that were begun, in the order of the guides."""
        begun, self._begun = self._begun, []
        return begun.result() if isinstance(begun, Future) else begun

    def _computed(self, wanted: Sequence[Wanted]) -> Masks:
        if len(self._words) < len(wanted):
            self._words = np.empty((len(wanted), self._n_words), np.int32)
        masks: Masks = []
        open_rows: list[tuple[Matcher, int]] = []
        for row, (guide, draft) in enumerate(wanted):
            matcher = guide.matcher
            if draft or not isinstance(matcher, Matcher):
                masks.append(guide.masks(draft))
                continue
            masks.append([self._words[row]])
            if guide.forced:
                allow_only(guide.forced[0], self._words[row])
            else:
                open_rows.append((matcher, row))
        if open_rows:
            if self._threads is None:
                self._threads = MaskThreads(self._n_threads)
            open_rows.sort(key=lambda one: id(one[0].lexer))
            self._threads.fill(open_rows, self._words)
        return masks
