"""The draw from the candidates of one row by itself: the token that `chain.draw` chooses.

A few dozen candidates are ranked and summed in plain Python, because so many calls of numpy take
longer after a pass of the model (see `row`). Python's sums, differences and quotients of doubles
are numpy's to the last bit. Its exponential need not be, so numpy computes that.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate

import numpy as np

from engine_worker.sampling.chain import Scores, Steps, Table, draw
from engine_worker.sampling.row import RowCandidates

MOST = 128
"""Of more candidates each step is one call of numpy."""


def draw_of_row(found: RowCandidates, steps: Steps, table: Table, number: float) -> int:
    """The place of the chosen candidate. `table` has the `steps` of the row only."""
    if len(found.ids) <= MOST and not table.is_typical:
        return _draw_of_few(found, steps, number)
    counts, numbers = np.array([len(found.ids)]), np.array([number])
    return int(draw(scores_of(found), counts, table, numbers, found.whole, found.reaches)[0])


def scores_of(found: RowCandidates) -> Scores:
    """The candidates' scores for the chain."""
    return (found.logits.astype(np.float64) - found.best)[None]


def _draw_of_few(found: RowCandidates, steps: Steps, number: float) -> int:
    """Top-n-sigma, top-k, top-p and min-p each keep the first of the ranking: a lower logit is
    never kept without a higher one, and of equal ones a higher id not without a lower one."""
    best = found.best
    below = [best - logit for logit in found.logits.tolist()]
    ranking = sorted(range(len(below)), key=below.__getitem__)
    ranked = [below[place] for place in ranking]
    n_first = int(min(steps.top_k, bisect_right(ranked, found.reach)))
    n_kept = min(n_first, bisect_right(ranked, -steps.log_min_p))
    if n_kept > 1 and steps.top_p < 1.0:
        mass = _mass(-score for score in ranked[:n_first])
        wanted = steps.top_p * (mass[-1] if found.whole is None else found.whole)
        n_kept = min(n_kept, bisect_left(mass, wanted) + 1)
    if n_kept == 1:
        return ranking[0]
    kept = sorted(ranking[:n_kept])
    mass = _mass(-below[place] / steps.temperature for place in kept)
    return kept[bisect_right(mass, number * mass[-1])]


def _mass(scores: Iterable[float]) -> list[float]:
    """The weights of scores, summed up to each of them."""
    return list(accumulate(np.exp(list(scores)).tolist()))
