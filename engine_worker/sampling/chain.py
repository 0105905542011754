"""llama.cpp's sampler chain from top-n-sigma to the draw, for many rows at once.

Pure arithmetic over candidates: `scores` has shape (n_rows, n_candidates) and holds logits minus
the row's largest, candidates by rising id, padded with -inf. Double precision, so that the order of
summation does not decide which candidates survive. Every sum runs along one row, and padding adds
zeros to it, so a row's result does not depend on the other rows, to the last bit.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]
Counts = NDArray[np.intp]


_ALL = 1 << 31
"""More than any vocabulary has."""

LEAST_TEMPERATURE = 1e-200
"""At this temperature the best token is certain. Below it, scores divided by it overflow."""


class Steps(NamedTuple):
    """The steps' parameters for one row, in the order in which they are taken. A step that is off
    has its neutral value. `temperature` is the least one at least."""

    top_n_sigma: float = 0.0
    top_k: float = math.inf
    typical_p: float = 1.0
    top_p: float = 1.0
    log_min_p: float = -math.inf
    temperature: float = 1.0


OFF = Steps()

GREEDY = Steps(top_k=1)
"""Top-k 1 keeps the lowest id of equals, as argmax does. No other step changes what it keeps."""


class Table:
    """The `Steps` of some rows as columns, and which steps any row takes. Immutable.

    To find out which steps are taken costs as much as a step, so it is done once.
    """

    def __init__(self, values: Scores) -> None:
        """`values` has a row of `Steps` for each."""
        self._values = values
        self.top_n_sigma, top_k, self.typical_p, self.top_p, log_min_p, temperature = values.T
        self.top_k: Counts = np.minimum(top_k, _ALL).astype(np.intp)
        self.log_min_p, self.temperature = log_min_p[:, None], temperature[:, None]
        self.is_n_sigma = bool((self.top_n_sigma > 0.0).any())
        self.is_typical = bool((self.typical_p < 1.0).any())
        self.has_nucleus = self.top_p < 1.0
        self.is_nucleus = bool(self.has_nucleus.any())
        self.is_nucleus_only = bool(self.has_nucleus.all())
        self.is_min_p = bool((log_min_p > -math.inf).any())

    def __len__(self) -> int:
        return len(self._values)

    def is_off(self, steps: Iterable[str]) -> Mask:
        """Whether none of these steps is taken, for each row."""
        places = [Steps._fields.index(step) for step in steps]
        off: Mask = (self._values[:, places] == np.array(OFF)[places]).all(axis=1)
        return off

    def of(self, rows: Counts) -> "Table":
        """The table of some rows only."""
        return Table(self._values[rows])


def draw(
    scores: Scores,
    counts: Counts,
    table: Table,
    uniforms: Scores,
    whole: float | None = None,
    reaches: Scores | None = None,
    ranked: Scores | None = None,
) -> Counts:
    """The place of each row's chosen candidate; arguments as `survivors` takes them.

    The draw goes by rising id, not by rank: if a replay's logits differ in the last bits, equal
    candidates may change ranks without changing the draw.
    """
    kept, weights = survivors(scores, counts, table, whole, reaches, ranked=ranked)
    mass = weights.cumsum(axis=1)
    drawn = uniforms * mass[:, -1]
    places = _count(mass <= drawn[:, None])
    # the product may be rounded up to all of the mass
    for row in (places == scores.shape[1]).nonzero()[0]:
        places[row] = kept[row].nonzero()[0][-1]
    return places


def survivors(
    scores: Scores,
    counts: Counts,
    table: Table,
    whole: float | None = None,
    reaches: Scores | None = None,
    min_keep: int = 0,
    ranked: Scores | None = None,
) -> tuple[Mask, Scores]:
    """The candidates that the steps leave, and their weights, not normalized; 0 for the rest.

    The first `counts` of each row, at least one, are candidates; the rest is padding. `table` has
    the steps of each row. `whole` is the mass of all tokens, of which top-p is a share; None if the
    candidates hold every token that the steps before top-p leave. `reaches` are the scores that
    top-n-sigma allows at the least, without their sign, one for each row (see the module `reach`);
    None if it is off in all rows. Typical-p, top-p and min-p leave `min_keep` candidates at least.
    `ranked` are all scores in falling order; None where they are not sorted.
    """
    if reaches is not None:
        scores = np.where(scores >= -reaches[:, None], scores, -np.inf)
        counts = _count(scores > -np.inf)
    n_kept = np.minimum(table.top_k, counts)
    if table.is_typical:
        scores = np.where(_first(scores, _ranked(scores), n_kept), scores, -np.inf)
        for row in (table.typical_p < 1.0).nonzero()[0]:
            _drop_untypical(scores[row], float(table.typical_p[row]), min_keep)
        n_kept = counts = _count(scores > -np.inf)
        ranked = None
    if table.is_nucleus or (n_kept < counts).any():
        ranked = _ranked(scores) if ranked is None else ranked
        if table.is_nucleus:
            nucleus = _nucleus(ranked, n_kept, table.top_p, whole)
            nucleus = np.minimum(n_kept, np.maximum(nucleus, min_keep) if min_keep else nucleus)
            n_kept = (
                nucleus if table.is_nucleus_only else np.where(table.has_nucleus, nucleus, n_kept)
            )
        kept = _first(scores, ranked, n_kept)
    else:
        kept = scores > -np.inf
    if table.is_typical:  # the best one may be gone
        scores = scores - scores.max(axis=1, keepdims=True)
    if table.is_min_p:
        likely = kept & (scores >= table.log_min_p)
        kept = _at_least(min_keep, likely, kept, scores) if min_keep else likely
    weights = np.exp(scores / table.temperature)
    weights *= kept
    return kept, weights


def _count(mask: Mask) -> Counts:
    counts: Counts = np.add.reduce(mask, axis=1, dtype=np.intp)
    return counts


def _ranked(scores: Scores) -> Scores:
    return np.sort(scores, axis=1)[:, ::-1]


def _first(scores: Scores, ranked: Scores, n_kept: Counts) -> Mask:
    """The `n_kept` largest of each row; of equal ones, the lowest ids."""
    least = ranked[np.arange(len(ranked)), n_kept - 1]
    kept = scores >= least[:, None]
    surplus = _count(kept) - n_kept
    for row in surplus.nonzero()[0]:
        equal = (scores[row] == least[row]).nonzero()[0]
        kept[row, equal[-surplus[row] :]] = False
    return kept


def _nucleus(ranked: Scores, n_kept: Counts, top_p: Scores, whole: float | None) -> Counts:
    """The number of the first `n_kept` that together hold the share `top_p` of the mass."""
    mass = np.exp(ranked[:, : n_kept.max()])
    if n_kept.min() < mass.shape[1]:
        mass *= np.arange(mass.shape[1]) < n_kept[:, None]
    mass = mass.cumsum(axis=1)
    wanted = top_p * (mass[:, -1] if whole is None else whole)
    return _count(mass < wanted[:, None]) + 1


def _at_least(n: int, kept: Mask, eligible: Mask, scores: Scores) -> Mask:
    """`kept`, or the `n` best of the eligible candidates where it has fewer. It has the best."""
    scores = np.where(eligible, scores, -np.inf)
    n_kept = np.minimum(np.maximum(_count(kept), n), _count(eligible))
    return _first(scores, _ranked(scores), n_kept)


def _drop_untypical(scores: Scores, share: float, min_keep: int) -> None:
    """Locally typical sampling of one row, in place (Meister et al. 2022): the tokens with a
    surprise nearest to the entropy stay, until they hold more than `share` of the mass."""
    places = (scores > -np.inf).nonzero()[0]
    weights = np.exp(scores[places])
    chances = weights / weights.sum()
    surprise = -np.log(np.maximum(chances, np.finfo(np.float64).tiny))
    entropy = float((chances * surprise).sum())
    nearest = np.argsort(np.abs(surprise - entropy), kind="stable")
    n_kept = int(np.cumsum(chances[nearest]).searchsorted(share, side="right")) + 1
    scores[places[nearest[max(n_kept, min_keep) :]]] = -np.inf
