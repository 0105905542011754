"""Which tokens of a row the chain can keep: few enough to be cheap, and none left out.

Of many rows at once the first k are found in one pass. Rows are folded into columns of `DEPTH`
logits each; token `id` is in column `id % n_columns`, so that folding is the maximum of long
contiguous runs. At least k tokens reach the k-th largest of the columns' maxima; only a column
whose maximum reaches it can hold one that does, and these few columns are all that is looked at
again.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine_worker.logit_adjustment import Adjusted, Logits, Places
from engine_worker.sampling_chain import Counts, Steps

DEPTH = 16
"""Logits in a column: fewer make more maxima to look through, more make more logits to gather."""

MAX_COLUMNS = 512
"""Columns gathered for one row; where it takes more, to look through the row is as fast."""

_REFOLD = 8
_REFOLD_FROM = 1 << 15
"""Maxima in all; to look through fewer takes less time than to fold them."""

_LEAST = np.finfo(np.float32).min


class Candidates(NamedTuple):
    """Tokens of some rows: `rows` says which, in rising order, `counts` how many of each. The other
    arrays have shape (len(rows), counts.max()), by rising id, padded at the end with -inf."""

    rows: Counts
    counts: Counts
    ids: Places
    logits: Logits


class Columns:
    """The arithmetic of ids and columns for one size of vocabulary. Immutable."""

    def __init__(self, n_vocab: int) -> None:
        self.n_vocab = n_vocab
        self.n_columns = max(1, n_vocab // DEPTH)
        self._depth, self._rest = divmod(n_vocab, self.n_columns)
        self._depths = np.arange(self._depth + (self._rest > 0))[:, None] * self.n_columns

    def fold(self, logits: Logits, maxima: Logits) -> None:
        """Write the maximum of each column, NaN if it has one, to `maxima` (n_rows, n_columns)."""
        whole = self._depth * self.n_columns
        logits[:, :whole].reshape(len(logits), self._depth, self.n_columns).max(axis=1, out=maxima)
        if self._rest:
            first = maxima[:, : self._rest]
            np.maximum(first, logits[:, whole:], out=first)

    def first(
        self, logits: Logits, maxima: Logits, best: Logits, changed: Adjusted, n_first: Counts
    ) -> Candidates:
        """All tokens that can be among the first `n_first` of their row, where these are few.

        `maxima` is what `fold` gave, without NaN, or -inf for rows to leave out; it is spoilt.
        `best` are the rows' largest logits. `changed` logits take the place of those in `logits`.
        Tokens with -inf are left out, and rows that have no others.
        """
        if len(changed.places):
            touched = self._columns_of(changed.places)
            bounds, wanted = self._wanted(maxima, best, changed, touched, n_first)
        else:
            bounds = _bounds(self._reached(maxima, n_first), best)
            wanted = maxima >= bounds[:, None]
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
            values[depths, columns.searchsorted(touched[seen])] = changed.values[seen]
        reaching = np.flatnonzero(values >= bounds[rows])
        places, values = places.reshape(-1)[reaching], values.reshape(-1)[reaching]
        by_id = places.argsort()
        return self._by_row(places[by_id], values[by_id], len(logits))

    def _columns_of(self, places: Places) -> Places:
        """The columns of tokens, both counted through the whole matrix."""
        rows = places // self.n_vocab
        return rows * self.n_columns + (places - rows * self.n_vocab) % self.n_columns

    def _wanted(
        self, maxima: Logits, best: Logits, changed: Adjusted, touched: Places, n_first: Counts
    ) -> tuple[Logits, NDArray[np.bool_]]:
        """The rows' bounds, and which columns can hold tokens that reach them.

        Of the other tokens in a changed one's column is known only that they are not above the old
        maximum; what is sure to be there, and may be counted for the bound, is the changed ones.
        """
        flat = maxima.reshape(-1)
        highest = flat[touched]
        flat[touched] = -np.inf
        np.maximum.at(flat, touched, changed.values)
        highest = np.maximum(highest, flat[touched])
        bounds = _bounds(self._reached(maxima, n_first), best, maxima.max(axis=1))
        wanted = maxima >= bounds[:, None]
        wanted.reshape(-1)[touched] = highest >= bounds[touched // self.n_columns]
        return bounds, wanted

    def _reached(self, maxima: Logits, n_first: Counts) -> Logits:
        """What `n_first` tokens of each row reach, or -inf where that is unknown."""
        width = self.n_columns // _REFOLD
        if maxima.size >= _REFOLD_FROM and n_first.max() <= width // 4:
            # folded once more the bound is a little lower, and found in a fraction of the time
            deep = maxima[:, : width * _REFOLD].reshape(len(maxima), _REFOLD, width)
            maxima = deep.max(axis=1)
        width = maxima.shape[1]
        places = width - np.minimum(n_first, width)
        least = np.partition(maxima, sorted(set(places.tolist())), axis=1)
        reached: Logits = np.where(n_first > width, -np.inf, least[np.arange(len(places)), places])
        return reached

    def _gather(self, logits: Logits, rows: Places, columns: Places) -> tuple[Places, Logits]:
        """The logits of columns, shape (depth, len(columns)), and their places in the matrix."""
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


def of_row(row: Logits, best: np.float32, steps: Steps) -> tuple[Places, float | None]:
    """Ids, rising, of tokens of one whole row with its largest logit `best`, which is not -inf:
    of all that the chain can keep, and of few others.

    Also `whole` for `sampling_chain.survivors`.
    """
    if steps.top_k < math.inf:
        return np.flatnonzero(row >= _bounds(_reached(row, int(steps.top_k)), best)), None
    if steps.typical_p < 1.0 or steps.log_min_p == -math.inf:
        return np.flatnonzero(row >= _LEAST), None
    # a hair below the threshold, which is applied in double precision later
    ids = np.flatnonzero(row >= np.float32(float(best) + steps.log_min_p - 1e-3))
    if steps.top_p == 1.0:
        return ids, None
    return ids, float(np.exp(row - best).sum(dtype=np.float64))


def _reached(row: Logits, n_first: int) -> Logits:
    """What `n_first` tokens of a row reach, shape (1,)."""
    width = len(row) // DEPTH
    if 4 * n_first <= width:  # as many columns' maxima reach their n-th largest
        row = row[: DEPTH * width].reshape(DEPTH, width).max(axis=0)
    place = len(row) - n_first
    return np.partition(row, place)[place : place + 1]


def _bounds(reached: Logits, *best: Logits | np.float32) -> Logits:
    """Bounds for logits that reach `reached` or tie with one that does, and are not -inf.

    Ties are of scores, logit minus the best: near zero these tell less apart than the logits do.
    Where the best one is not known, two that it lies between are given.
    """
    hair = np.float32(2.0**-50)
    bounds = reached - np.abs(reached) * hair
    for some in best:
        bounds -= np.abs(some) * hair
    return np.maximum(bounds, _LEAST)
