"""The candidates of one row by itself, for any chain.

A pass of the model leaves little else in the processor's caches, and each first call of a function
takes several times what it takes in a loop. So the candidates are found with few calls, though the
row is read twice.
"""

import math
from typing import NamedTuple

import numpy as np

from engine_worker.backend.candidates import Logits, Places, tie_bound
from engine_worker.sampling.chain import Scores, Steps
from engine_worker.sampling.reach import reach

_COLUMNS = 512
"""A row is folded into so many columns (see `columns`). To sort fewer takes less time, but more of
them hold two of the first `top_k` tokens, which makes more candidates."""

_COLUMNS_OF_TOKEN = 4
"""A long top-k has so many columns for each of its tokens."""

_LEAST_DEPTH = 4
"""A row with fewer logits in a column is not folded."""

_LEAST = float(np.finfo(np.float32).min)
_NOTHING = np.empty(0, np.int64), np.empty(0, np.float32)


class RowCandidates(NamedTuple):
    """Tokens of one row: `ids`, rising, and `logits`. `best` is the row's largest logit. If it is
    not finite, the rest has no meaning. `whole` is as in `chain.survivors`; `reach` is inf where
    top-n-sigma is off."""

    best: float
    ids: Places
    logits: Logits
    whole: float | None = None
    reach: float = math.inf

    @property
    def reaches(self) -> Scores | None:
        """For the chain."""
        return None if self.reach == math.inf else np.array([self.reach])


def candidates_of_row(row: Logits, steps: Steps, min_keep: int = 0) -> RowCandidates:
    """All tokens of a row that the chain can keep, and few others; `min_keep` is as in
    `chain.survivors`."""
    if steps.top_k == 1:
        ids = np.array([row.argmax()])
        return RowCandidates(float(row[ids[0]]), ids, row[ids])
    width = max(_COLUMNS, _COLUMNS_OF_TOKEN * steps.top_k)
    if _LEAST_DEPTH * width <= len(row):
        found = _first_of_row(row, int(width), int(steps.top_k))
        if steps.top_n_sigma == 0.0 or not math.isfinite(found.best):
            return found
        return found._replace(reach=reach(row, steps.top_n_sigma))
    best = float(row.max())
    if not math.isfinite(best):
        return RowCandidates(best, *_NOTHING)
    whole, limit = None, reach(row, steps.top_n_sigma)
    if steps.top_k < math.inf:
        place = len(row) - int(steps.top_k)
        ids = np.flatnonzero(row >= tie_bound(float(np.partition(row, place)[place]), best))
    elif limit < math.inf:
        ids = np.flatnonzero(row >= tie_bound(best - limit, best))
    elif steps.typical_p < 1.0 or steps.log_min_p == -math.inf or min_keep:
        ids = np.flatnonzero(row >= _LEAST)
    else:
        # a hair below the threshold, which is applied in double precision later
        ids = np.flatnonzero(row >= np.float32(best + steps.log_min_p - 1e-3))
        if steps.top_p < 1.0:
            whole = float(np.exp(row - np.float32(best)).sum(dtype=np.float64))
    return RowCandidates(best, ids, row[ids], whole, limit)


def _first_of_row(row: Logits, width: int, top_k: int) -> RowCandidates:
    """The tokens that reach the `top_k`-th of `width` columns' maxima."""
    depth, n_rest = divmod(len(row), width)
    maxima: Logits = np.maximum.reduce(row[: depth * width].reshape(depth, width))
    if n_rest:
        np.maximum(maxima[:n_rest], row[depth * width :], out=maxima[:n_rest])
    maxima.sort()  # NaN comes last
    best = float(maxima[-1])
    if not math.isfinite(best):
        return RowCandidates(best, *_NOTHING)
    ids = (row >= tie_bound(float(maxima[-top_k]), best)).nonzero()[0]
    return RowCandidates(best, ids, row[ids])
