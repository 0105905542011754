"""The masks of one step's rows: ahead, while a device computes the step, or once a free choice has
been refused. The masks of several rows are computed at the same time."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

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

Masks = list[list[MaskWords | None]]
"""For each guide what `Guide.masks` returns, or None for a mask that was not computed."""


class Wanted(NamedTuple):
    """A guide of a step, and the draft after which it is asked for masks. A mask that is not needed
    is computed if a token was forced, and beside a device."""

    guide: Guide
    draft: Sequence[int] = ()
    is_needed: bool = True


def mask_threads(backend: Backend) -> int:
    """The number of threads that compute masks, from the cores that the device leaves free.

    A CPU computes most masks after the pass, with the threads of the pass.
    """
    if not profile_of(backend.facts).on_device:
        return max(1, min(MAX_THREADS, backend.n_threads))
    return max(1, min(MAX_THREADS, host.usable_cores() - CORES_IN_USE))


class StepMasks:
    """Belongs to the engine thread.

    Invariant: from `begin` to `take` other threads may use the guides, and the engine thread does
    not. The masks are rows of two arrays, which the next `begin` and `compute` write again. A step
    without masks costs nothing, and threads start with the first one.
    """

    def __init__(self, backend: Backend) -> None:
        n_words = -(-backend.facts.n_vocab // 32)
        self._memory = self._memory_refused = np.empty((0, n_words), np.int32)
        self._n_threads = mask_threads(backend)
        profile = profile_of(backend.facts)
        self._overlaps, self._has_time = profile.overlaps, profile.on_device
        self._threads: MaskThreads | None = None
        self._wanted: Sequence[Wanted] = ()
        self._first: dict[Guide, MaskWords] = {}  # the next row's, of guides
        self._waits: list[Callable[[], None]] = []

    def foresee(self, guides: Sequence[Guide]) -> None:
        """The guides that the next step most likely has, after the tokens that they have read.
        Nothing is computed ahead here."""

    def begin(self, wanted: Sequence[Wanted]) -> None:
        """Begin to compute the masks for the guides of a step, but for those that are foreseen.
        Called once the step has begun.

        Returns at once where steps overlap with other work, otherwise when the masks are there.
        """
        self._wanted = wanted
        missing = [
            one.guide
            for one in wanted
            if one.guide not in self._first and (one.is_needed or self._has_time)
        ]
        if missing:
            self._memory = of_rows(len(missing), self._memory)
            rows = self._with_rows(missing, self._memory)
            self._compute([(guide, row) for guide, row in rows if not guide.forced], self._memory)

    def take(self) -> Masks:
        """Wait for the masks that were begun, in the order of the guides."""
        for wait in self._waits:
            wait()
        masks = [_masks_of(wanted, self._first.get(wanted.guide)) for wanted in self._wanted]
        self._waits, self._first, self._wanted = [], {}, ()
        return masks

    def compute(self, guides: Sequence[Guide]) -> list[MaskWords]:
        """The masks of guides of which none forces a token, at once. Called after `take`."""
        memory = self._memory_refused = of_rows(len(guides), self._memory_refused)
        rows = _by_lexer(zip(guides, range(len(guides)), strict=True))
        if rows:
            self._mask_threads().fill(rows, memory)
        found = {row for _, row in rows}
        return [
            memory[row] if row in found else guide.matcher.mask()
            for row, guide in enumerate(guides)
        ]

    def _with_rows(self, guides: Sequence[Guide], words: MaskWords) -> list[tuple[Guide, int]]:
        """The guides that threads can compute masks of, with the rows that these get."""
        rows = [(guide, row) for row, guide in enumerate(guides)]
        found = [(guide, row) for guide, row in rows if isinstance(guide.matcher, Matcher)]
        self._first.update((guide, words[row]) for guide, row in found)
        return found

    def _compute(self, guides: Sequence[tuple[Guide, int]], words: MaskWords) -> None:
        rows = _by_lexer(guides)
        if not rows:
            return
        threads = self._mask_threads()
        if self._overlaps:
            self._waits.append(threads.begin(rows, words))
        else:
            threads.fill(rows, words)

    def _mask_threads(self) -> MaskThreads:
        if self._threads is None:
            self._threads = MaskThreads(self._n_threads)
        return self._threads


def _by_lexer(guides: Iterable[tuple[Guide, int]]) -> list[tuple[Matcher, int]]:
    """The matchers that threads can compute masks of. Those with one lexer are neighbours."""
    rows = [(guide.matcher, row) for guide, row in guides if isinstance(guide.matcher, Matcher)]
    rows.sort(key=lambda one: id(one[0].lexer))
    return rows


def _masks_of(wanted: Wanted, first: MaskWords | None) -> list[MaskWords | None]:
    """The masks for the rows of a sequence, the first of which may have been computed."""
    guide, draft, is_needed = wanted
    if first is not None and guide.forced:
        allow_only(guide.forced[0], first)
    if first is None and (is_needed or guide.forced):
        return guide.masks(draft)
    return guide.masks(draft, first) if draft else [first]


def of_rows(n_rows: int, memory: MaskWords) -> MaskWords:
    """An array with so many rows at least: `memory` itself if it is large enough."""
    return memory if len(memory) >= n_rows else np.empty((n_rows, memory.shape[1]), np.int32)
