"""The log probabilities of one row's tokens, for requests that ask for them. Pure.

They are the model's own, as llama-server's `n_probs` are: the softmax of the raw logits, before
masks, biases, penalties and the chain. `after_sampling` gives those of the distribution from which
the token was drawn. Rows of other requests are not looked at.
"""

import math
from typing import NamedTuple

import numpy as np

from engine_worker.backend.candidates import Counts, Logits, MaskWords
from engine_worker.sampling.batch import Pick
from engine_worker.sampling.chain import Scores, Steps
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
    ids, probabilities = _distribution(row, pick)
    order = np.argsort(-probabilities, kind="stable")[:n_top]
    logprobs = np.log(probabilities)
    found = logprobs[ids == token]
    return RowLogprobs(
        float(found[0]) if len(found) else -math.inf,
        ids[order].tolist(),
        logprobs[order].tolist(),
    )


def _distribution(row: Logits, pick: Pick) -> tuple[Counts, Scores]:
    """The tokens that the pick can give, by rising id, and their probabilities."""
    ids, probabilities = _drawn_from(row, pick, pick.mask)
    if pick.guide is None or pick.mask is None:
        return ids, probabilities
    free_ids, chances = _drawn_from(row, pick, None)
    allowed = pick.mask[free_ids >> 5] >> (free_ids & 31) & 1 > 0
    free_ids, chances = free_ids[allowed], chances[allowed]
    result = np.zeros(len(row))
    result[ids] = max(0.0, 1.0 - chances.sum()) * probabilities
    result[free_ids] += chances
    ids = result.nonzero()[0]
    return ids, result[ids]


def _drawn_from(row: Logits, pick: Pick, mask: MaskWords | None) -> tuple[Counts, Scores]:
    return pick.sampler.distribution(
        row,
        pick.history[: pick.n_history],
        mask,
        choice=pick.choice,
        position=pick.position,
        state=pick.sampler.state_before,
    )


def _best(row: Logits, n: int) -> tuple[list[int], list[float]]:
    if not n:
        return [], []
    found = candidates_of_row(row, Steps(top_k=n))
    order = np.argsort(-found.logits, kind="stable")[:n]  # the candidates are by rising id
    return found.ids[order].tolist(), found.logits[order].tolist()
