"""The log probabilities of one row's tokens, for requests that ask for them. Pure.

They are the model's own, as llama-server's `n_probs` are: the softmax of the raw logits, before
masks, biases, penalties and the chain. `after_sampling` gives those of the distribution from which
the token was drawn. Rows of other requests are not looked at.
"""

import math
from typing import NamedTuple

import numpy as np

from engine_worker.backend.candidates import Logits
from engine_worker.sampling.batch import Pick
from engine_worker.sampling.chain import Steps
from engine_worker.sampling.row import candidates_of_row


class RowLogprobs(NamedTuple):
    """The log probability of a token, and those of the row's best tokens: the best first, equal
    ones by rising id."""

    of_token: float
    ids: list[int]
    logprobs: list[float]


def of_model(row: Logits, token: int, n_top: int) -> RowLogprobs:
    """The softmax of the raw logits. `n_top` is less than the row is long."""
    best = float(row.max())
    # single precision for each term, as llama.cpp has it; the sum of many needs more
    total = float(np.exp(row - np.float32(best)).sum(dtype=np.float64))
    whole = best + math.log(total)
    ids, logits = _best(row, n_top)
    return RowLogprobs(float(row[token]) - whole, ids, [logit - whole for logit in logits])


def after_sampling(row: Logits, pick: Pick, token: int, n_top: int) -> RowLogprobs:
    """The distribution that `pick` has just drawn from. A token that cannot be drawn is not among
    the best ones, so there may be fewer than `n_top`."""
    ids, probabilities = pick.sampler.distribution(
        row,
        pick.history[: pick.n_history],
        pick.mask,
        choice=pick.choice,
        position=pick.position,
        state=pick.sampler.state_before,
    )
    order = np.argsort(-probabilities, kind="stable")[:n_top]
    logprobs = np.log(probabilities)
    found = logprobs[ids == token]
    return RowLogprobs(
        float(found[0]) if len(found) else -math.inf,
        ids[order].tolist(),
        logprobs[order].tolist(),
    )


def _best(row: Logits, n: int) -> tuple[list[int], list[float]]:
    if not n:
        return [], []
    found = candidates_of_row(row, Steps(top_k=n))
    order = np.argsort(-found.logits, kind="stable")[:n]  # the candidates are by rising id
    return found.ids[order].tolist(), found.logits[order].tolist()
