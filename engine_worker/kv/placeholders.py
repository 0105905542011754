"""Sequences that have ended and are computed on for a while, for nobody. Pure.

For a device and a KV stream for each sequence. There a pass of another shape than the one before
takes twice as long, twice: its launch is prepared anew. And where the one that ended ran between
others, its gap makes two passes of one. Most places are taken again soon. Until then the last token
of the one that ended is computed over and over in its place, whose cells are cut back each time.
"""

from engine_worker.text.sequence import Sequence

LEAST_RUNNING = 8
"""Beside fewer a row for nobody takes longer, and drafts change the shape anyway."""

MOST_ROWS = 64
"""Rows for nobody, in all steps since the first of those that linger ended. One H100: a change of
shape takes 6 ms more, such a row 0.03 ms with a model of 135M parameters, 0.1 with one of 8B."""


class Lingering:
    """By slot. The engine thread's own."""

    def __init__(self) -> None:
        self._ended: dict[int, Sequence] = {}
        self._n_rows = 0

    def __len__(self) -> int:
        return len(self._ended)

    @property
    def slots(self) -> set[int]:
        """Where some linger."""
        return set(self._ended)

    def add(self, slot: int, sequence: Sequence) -> None:
        """A sequence has ended that took part in the passes."""
        self._ended[slot] = sequence

    def drop(self, slot: int) -> None:
        """Something else is done with the slot."""
        self._ended.pop(slot, None)
        if not self._ended:
            self._n_rows = 0

    def clear(self) -> None:
        """Nobody lingers any more."""
        self._ended.clear()
        self._n_rows = 0

    def beside(self, n_running: int) -> dict[int, Sequence]:
        """Those to compute beside so many others. All go at once when it has become too dear: each
        that went alone would be another change."""
        if n_running < LEAST_RUNNING or self._n_rows + len(self._ended) > MOST_ROWS:
            self.clear()
        return self._ended

    def computed(self) -> None:
        """A step has computed one of them."""
        self._n_rows += 1
