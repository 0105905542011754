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

from engine_worker.backend.port import First, Logits
from engine_worker.sampling.adjustment import Adjusted, Places
from engine_worker.sampling.chain import Counts, Steps

DEPTH = 16
"""Logits in a column: fewer make more maxima to look through, more make more logits to gather."""

MAX_COLUMNS = 512
"""Columns gathered for one row; where it takes more, to look through the row is as fast."""

OUT_OF_REACH = np.float32(-1e30)
"""Stands for -inf where sums are to stay finite."""

_REFOLD = 8
_REFOLD_FROM = 1 << 15
"""Maxima in all; to look through fewer takes less time than to fold them."""

_SAMPLED = 16
"""Of what is found elsewhere every such logit is held against the row: four exact ones of 64 are no
coincidence."""

_LEAST = float(np.finfo(np.float32).min)
_HAIR = 2.0**-50
_NOTHING = np.empty(0, np.int64), np.empty(0, np.float32)


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


def of_top(logits: Logits, ids: NDArray[np.int32], wanted: NDArray[np.bool_]) -> Candidates:
    """The candidates of `wanted` rows for up to k - 1 first tokens, given the first k of each.

    `logits` (n_rows, n_vocab) are finite. Rows are left out whose last ones others may equal, or
    are `OUT_OF_REACH`.
    """
    ordered = np.sort(ids, axis=1).astype(np.int64)
    starts = np.arange(0, logits.size, logits.shape[1])[:, None]
    values = logits.reshape(-1).take(ordered + starts, mode="clip")
    last, before = np.partition(values, 1, axis=1)[:, :2].T
    sure = last < _bounds(before, values.max(axis=1))
    sure &= last > OUT_OF_REACH
    sure &= wanted
    rows = sure.nonzero()[0]
    if len(rows) < len(ids):
        ordered, values = ordered[rows], values[rows]
    return Candidates(rows, np.full(len(rows), ids.shape[1]), ordered, values)


def of_first(
    logits: Logits, first: First, changed: Adjusted, wanted: NDArray[np.bool_], n_first: Counts
) -> Candidates | None:
    """The candidates of `wanted` rows for their `n_first` first tokens, fewer than `first` has.

    `logits` (n_rows, n_vocab) are as before; none of the `changed` ones of a wanted row becomes
    larger. Rows are left out of which `first` may not hold all. None if no row is wanted, or if
    `first` does not fit the logits, of which some are looked at.
    """
    if not wanted.any():
        return None
    ids, values, k = first.ids, first.logits, first.ids.shape[1]
    places = ids + np.arange(0, logits.size, logits.shape[1])[:, None]
    some = slice(None, None, _SAMPLED)
    if (logits.reshape(-1).take(places[:, some], mode="clip") != values[:, some]).any():
        return None
    least = values.min(axis=1)
    if len(changed.places):
        values = _with(values, places.reshape(-1), changed)
    nth = k - int(n_first[wanted].max())
    reached = np.partition(values, nth, axis=1)[:, nth]
    sure = least < _bounds(reached, values.max(axis=1))
    sure &= reached > OUT_OF_REACH
    sure &= wanted
    rows = sure.nonzero()[0]
    if len(rows) < len(ids):
        ids, values = ids[rows], values[rows]
    return Candidates(rows, np.full(len(rows), k), ids, values)


def _with(values: Logits, places: Places, changed: Adjusted) -> Logits:
    """A copy with the changed logits of those that are at rising `places`."""
    at = np.minimum(places.searchsorted(changed.places), len(places) - 1)
    there = (places[at] == changed.places).nonzero()[0]
    values = values.copy()
    values.reshape(-1)[at[there]] = changed.values[there]
    return values


def of_row(row: Logits, steps: Steps) -> tuple[float, Places, Logits, float | None]:
    """Of one whole row the largest logit, ids, rising, and logits of all tokens that the chain can
    keep, and of few others; also `whole` for `sampling_chain.survivors`.

    The largest one is NaN if the row has one, or infinite; then the rest is worth nothing.
    """
    if steps.top_k == 1:
        ids = np.array([row.argmax()])
        return float(row[ids[0]]), ids, row[ids], None
    width = len(row) // DEPTH
    if 4 * steps.top_k <= width:
        return *_first_of_row(row, width, int(steps.top_k)), None
    best = float(row.max())
    if not math.isfinite(best):
        return best, *_NOTHING, None
    whole = None
    if steps.top_k < math.inf:
        place = len(row) - int(steps.top_k)
        ids = np.flatnonzero(row >= _bound(float(np.partition(row, place)[place]), best))
    elif steps.typical_p < 1.0 or steps.log_min_p == -math.inf:
        ids = np.flatnonzero(row >= _LEAST)
    else:
        # a hair below the threshold, which is applied in double precision later
        ids = np.flatnonzero(row >= np.float32(best + steps.log_min_p - 1e-3))
        if steps.top_p < 1.0:
            whole = float(np.exp(row - np.float32(best)).sum(dtype=np.float64))
    return best, ids, row[ids], whole


def _first_of_row(row: Logits, width: int, top_k: int) -> tuple[float, Places, Logits]:
    """Those that reach what `top_k` of `width` columns' maxima reach. The row is read once."""
    columns = row[: DEPTH * width].reshape(DEPTH, width)
    maxima = columns.max(axis=0)
    best = float(maxima.max())
    rest = row[DEPTH * width :]
    if len(rest):
        best = float(np.maximum(best, rest.max()))
    if not math.isfinite(best):
        return best, *_NOTHING
    place = width - top_k
    bound = _bound(float(np.partition(maxima, place)[place]), best)
    wanted = (maxima >= bound).nonzero()[0]
    logits = columns.take(wanted, axis=1)
    depths, places = (logits >= bound).nonzero()
    ids, logits = depths * width + wanted[places], logits[depths, places]
    if len(rest) and rest.max() >= bound:
        reaching = (rest >= bound).nonzero()[0]
        ids = np.concatenate((ids, reaching + DEPTH * width))
        logits = np.concatenate((logits, rest[reaching]))
    return best, ids, logits


def _bound(reached: float, best: float) -> np.float32:
    """See `_bounds`, for one row."""
    return np.float32(max(reached - (abs(reached) + abs(best)) * _HAIR, _LEAST))


def _bounds(reached: Logits, *best: Logits) -> Logits:
    """Bounds for logits that reach `reached` or tie with one that does, and are not -inf.

    Ties are of scores, logit minus the best: near zero these tell less apart than the logits do.
    Where the best one is not known, two that it lies between are given.
    """
    bounds = reached - np.abs(reached) * _HAIR
    for some in best:
        bounds -= np.abs(some) * _HAIR
    return np.maximum(bounds, _LEAST)
