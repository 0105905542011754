"""Which rows can do without the tokens that a finder has not seen.

Under a mask a device's few largest logits may hold fewer allowed tokens than top-k lets pass. The
missing ones have at most a known logit. Where min-p drops all of them, they count only in the mass
of which top-p is a share. That mass lies between two bounds. If both bounds let top-p keep the same
ones of the tokens that min-p keeps, the row's token is the same as with all tokens.
"""

import numpy as np
from numpy.typing import NDArray

from engine_worker.backend.candidates import Candidates, Logits
from engine_worker.sampling.chain import Steps, Table

_UNPROVEN = tuple(
    step
    for step in Steps._fields
    if step not in {"top_k", "top_p", "log_min_p", "temperature"}  # `_suffices` knows these
)
"""A row that takes such a step, any later one too, needs all of its tokens."""

_ROUNDING = 1e-9
"""More than rounding changes a sum of a few hundred terms by, as a share."""


def without_unseen(found: Candidates, table: Table) -> Candidates:
    """The rows that need no further token. `table` has the steps of `found.rows`.

    Candidates that hold what is asked for are all returned.
    """
    if found.unseen is None:
        return found
    kept = found.unseen == -np.inf
    part = (~kept).nonzero()[0]
    kept[part] = _suffices(found.logits[part], found.unseen[part], table.of(part))
    return found.of(kept)._replace(unseen=None)


def _suffices(logits: Logits, unseen: Logits, table: Table) -> NDArray[np.bool_]:
    """Whether the steps keep the same of these candidates with and without the unseen tokens.

    Candidates are fewer than top-k keeps. Forbidden ones are -inf.
    """
    ranked = np.sort(logits.astype(np.float64), axis=1)[:, ::-1]
    best = ranked[:, :1]
    ranked = ranked - best
    highest = unseen.astype(np.float64)[:, None] - best
    likely = ranked >= table.log_min_p
    mass = np.exp(ranked).cumsum(axis=1)
    # one that a penalty or bias has lowered to below the unseen ones gives its place to one of them
    n_before = np.count_nonzero(ranked > highest, axis=1, keepdims=True)
    n_unseen = table.top_k[:, None] - n_before
    least = mass[:, -1:] * (1.0 - _ROUNDING)
    most = (mass[:, -1:] + n_unseen * np.exp(highest)) * (1.0 + _ROUNDING)
    share = np.where(table.has_nucleus, table.top_p, 0.0)[:, None]
    # a token is kept if the mass before it has not reached the share
    before, follows = mass[:, :-1], likely[:, 1:]
    differs = (before >= share * least) & (before < share * most) & follows
    suffices: NDArray[np.bool_] = (highest < table.log_min_p)[:, 0] & ~differs.any(axis=1)
    suffices &= table.is_off(_UNPROVEN)
    return suffices
