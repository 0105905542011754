"""The finder that needs nothing but numpy: one pass over each row, then a few columns of it.

A row is folded into columns of `DEPTH` logits each. Token `id` is in column `id % n_columns`, so
that folding is the maximum of long contiguous runs. At least k tokens reach the k-th largest of the
columns' maxima. Only a column whose maximum reaches it can hold one that does, and only these few
columns are looked at again.
"""

import numpy as np
from numpy.typing import NDArray

from engine_worker.backend.candidates import (
    Candidates,
    ChangedLogits,
    Counts,
    Logits,
    Places,
    RowMasks,
    kth_largest,
    masked,
    tie_bounds,
)
from engine_worker.sampling.bias import unusable
from engine_worker.sampling.threads import RowThreads

DEPTH = 16
"""Logits in a column: fewer make more maxima to look through, more make more logits to gather."""

MIN_COLUMNS = 512
"""A small vocabulary has columns of fewer logits. With fewer columns than `k` the bound is unknown,
and every token would be a candidate."""

MAX_COLUMNS = 512
"""Columns gathered for one row. A row that takes more is looked through as fast by itself."""

_REFOLD = 8
_REFOLD_FROM = 1 << 15
"""Maxima in all; to look through fewer takes less time than to fold them."""


class Columns:
    """The last finder of every tuple. Implements `CandidateFinder`.

    Honours any `k`, changes and masks. Leaves out rows without a token that is not -inf, and rows
    that take more than `MAX_COLUMNS`. Its memory, a sixteenth of the logits, is used again at every
    step.
    """

    def __init__(self, n_vocab: int, threads: RowThreads) -> None:
        self.n_vocab = n_vocab
        self.n_columns = max(n_vocab // DEPTH, min(n_vocab, MIN_COLUMNS))
        self._depth, self._rest = divmod(n_vocab, self.n_columns)
        self._depths = np.arange(self._depth + (self._rest > 0))[:, None] * self.n_columns
        self._threads = threads
        self._maxima = np.empty((0, self.n_columns), np.float32)

    def find(
        self, logits: Logits, k: Counts, changed: ChangedLogits, masks: RowMasks | None
    ) -> Candidates:
        """Raises `DecodeFailed` if a row with `k` > 0 has NaN, +inf or no finite logit."""
        free = k.copy()
        if masks is not None:
            free[masks.rows] = 0
        maxima = self._folded(logits, free)
        if not np.isfinite(maxima[free > 0].max(axis=1)).all():
            raise unusable()
        if masks is not None:
            self._fold_allowed(logits, maxima, k, masks)
        best = maxima.max(axis=1)
        unasked = (k == 0).nonzero()[0]
        k = np.maximum(k, 1)
        if len(changed.places):
            touched = self._columns_of(changed.places)
            bounds, wanted = self._wanted(maxima, best, changed, touched, k)
        else:
            bounds = tie_bounds(self._reached(maxima, k), best)
            wanted = maxima >= bounds[:, None]
        if len(unasked):
            wanted[unasked] = False
        columns = np.flatnonzero(wanted)
        rows = columns // self.n_columns
        if len(columns) > MAX_COLUMNS:
            few = np.bincount(rows, minlength=len(logits)) <= MAX_COLUMNS
            wanted[~few] = False
            columns, rows = columns[few[rows]], rows[few[rows]]
        places, values = self._gather(logits, rows, columns - rows * self.n_columns)
        if len(changed.places):
            seen = wanted.reshape(-1)[touched].nonzero()[0]
            depths = changed.places[seen] % self.n_vocab // self.n_columns
            values[depths, columns.searchsorted(touched[seen])] = changed.after[seen]
        reaching = np.flatnonzero(values >= bounds[rows])
        places, values = places.reshape(-1)[reaching], values.reshape(-1)[reaching]
        if masks is not None:
            rows = places // self.n_vocab
            allowed = masks.allow(rows, places - rows * self.n_vocab)
            places, values = places[allowed], values[allowed]
        by_id = places.argsort()
        return self._by_row(places[by_id], values[by_id], len(logits))

    def _folded(self, logits: Logits, k: Counts) -> Logits:
        """The rows' maxima by column. NaN if a column has one; -inf where `k` is 0."""
        n_rows = len(logits)
        if len(self._maxima) < n_rows:
            self._maxima = np.empty((n_rows, self.n_columns), np.float32)
        maxima = self._maxima[:n_rows]
        wanted = k.nonzero()[0]
        if 2 * len(wanted) > n_rows:
            self._threads.share(
                n_rows, self.n_vocab, lambda rows: self._fold(logits[rows], maxima[rows])
            )
        else:
            for row in wanted.tolist():
                self._fold(logits[row : row + 1], maxima[row : row + 1])
        if len(wanted) < n_rows:
            maxima[k == 0] = -np.inf
        return maxima

    def _fold_allowed(self, logits: Logits, maxima: Logits, k: Counts, masks: RowMasks) -> None:
        """The maxima of masked rows are those of their allowed tokens. Raises `DecodeFailed` as
        `find` does: a mask would hide such a logit."""
        wanted = k[masks.rows].nonzero()[0]
        best = np.zeros(len(masks.rows), np.float32)

        def fold(part: slice) -> None:
            memory = np.empty(32 * masks.words.shape[1], np.float32)
            for at in wanted[part].tolist():
                row = masks.rows[at]
                best[at] = logits[row].max()
                left = masked(logits[row], masks.words[at], memory)
                self._fold(left[None], maxima[row : row + 1])

        self._threads.share(len(wanted), self.n_vocab, fold)
        if not np.isfinite(best).all():
            raise unusable()

    def _fold(self, logits: Logits, maxima: Logits) -> None:
        whole = self._depth * self.n_columns
        logits[:, :whole].reshape(len(logits), self._depth, self.n_columns).max(axis=1, out=maxima)
        if self._rest:
            first = maxima[:, : self._rest]
            np.maximum(first, logits[:, whole:], out=first)

    def _columns_of(self, places: Places) -> Places:
        """The columns of tokens, both counted through the whole matrix."""
        rows = places // self.n_vocab
        return rows * self.n_columns + (places - rows * self.n_vocab) % self.n_columns

    def _wanted(
        self, maxima: Logits, best: Logits, changed: ChangedLogits, touched: Places, k: Counts
    ) -> tuple[Logits, NDArray[np.bool_]]:
        """The rows' bounds, and which columns can hold tokens that reach them.

        In a column with a changed token, the other tokens are known only to be at most the old
        maximum. So the bound counts only the changed tokens of such a column.
        """
        flat = maxima.reshape(-1)
        highest = flat[touched]
        flat[touched] = -np.inf
        np.maximum.at(flat, touched, changed.after)
        highest = np.maximum(highest, flat[touched])
        bounds = tie_bounds(self._reached(maxima, k), best, maxima.max(axis=1))
        wanted = maxima >= bounds[:, None]
        wanted.reshape(-1)[touched] = highest >= bounds[touched // self.n_columns]
        return bounds, wanted

    def _reached(self, maxima: Logits, k: Counts) -> Logits:
        """The value that `k` tokens of each row reach, or -inf where that is unknown."""
        width = self.n_columns // _REFOLD
        if maxima.size >= _REFOLD_FROM and k.max() <= width // 4:
            # folded once more, the bound is a little lower and found in a fraction of the time
            deep = maxima[:, : width * _REFOLD].reshape(len(maxima), _REFOLD, width)
            maxima = deep.max(axis=1)
        width = maxima.shape[1]
        reached: Logits = np.where(k > width, -np.inf, kth_largest(maxima, np.minimum(k, width)))
        return reached

    def _gather(self, logits: Logits, rows: Places, columns: Places) -> tuple[Places, Logits]:
        """The places in the matrix and the logits of columns, both (depth, len(columns))."""
        places = rows * self.n_vocab + columns + self._depths
        values = logits.reshape(-1).take(places, mode="clip")
        if self._rest:
            values[-1, columns >= self._rest] = -np.inf
        return places, values

    def _by_row(self, places: Places, values: Logits, n_rows: int) -> Candidates:
        counts = np.bincount(places // self.n_vocab, minlength=n_rows)
        rows = counts.nonzero()[0]
        counts = counts[rows]
        filled = np.arange(counts.max(initial=0)) < counts[:, None]
        ids = np.zeros(filled.shape, np.int64)
        ids[filled] = places
        ids -= (rows * self.n_vocab)[:, None]
        logits = np.full(filled.shape, -np.inf, np.float32)
        logits[filled] = values
        return Candidates(rows, counts, ids, logits)
