"""Top-n-sigma's reach: how far below its row's best logit a token may be.

The reach is `n` standard deviations of the row's logits, -inf left out (Tang et al. 2024). Few
candidates cannot tell it. So it is computed from the whole row, with mask, biases and penalties,
and handed to the chain beside the candidates. Where other samplers come before it, the row is what
these have left (`samplers.standard`).
"""

import math

import numpy as np

from engine_worker.backend.candidates import (
    ChangedLogits,
    Counts,
    Logits,
    RowMasks,
    apply_temporarily,
    masked,
)
from engine_worker.sampling.chain import Scores
from engine_worker.sampling.threads import RowThreads


def reach(row: Logits | Scores, n: float) -> float:
    """The reach of one row with a finite best logit; inf if `n` is 0, which is off."""
    if n == 0.0:
        return math.inf
    left = row if row.min() > -np.inf else row[row > -np.inf]
    return n * float(left.std(dtype=np.float64))


def reaches_of(
    logits: Logits,
    rows: Counts,
    n: Scores,
    changed: ChangedLogits,
    masks: RowMasks | None,
    threads: RowThreads,
) -> Scores:
    """The reaches of `rows` of the logits, with an `n` for each. The other arguments are as in
    `CandidateFinder.find`, which has found these rows sound."""
    reaches = np.full(len(rows), math.inf)
    wanted = n.nonzero()[0]

    def measure(part: slice) -> None:
        for at in wanted[part].tolist():
            row = logits[rows[at]]
            words = None if masks is None else masks.of(int(rows[at]))
            reaches[at] = reach(row if words is None else masked(row, words), float(n[at]))

    with apply_temporarily(changed, logits.reshape(-1)):
        threads.share(len(wanted), logits.shape[1], measure)
    return reaches
