"""The sampler chain written down plainly: every token, one step after the other.

The tests compare the choices of `Sampler` and `BatchSampler` with it, so it shares no code with
them but the random number. Rounding is part of the comparison: single precision up to the
penalties, double after them, sums from the first to the last (numpy's for top-n-sigma).
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from engine_worker.sampling.sampler import uniform
from gpufc.sampling import SamplingParams

Row = NDArray[np.float32]


def plain_choice(
    params: SamplingParams,
    logits: Row,
    history: Sequence[int],
    *,
    end_tokens: Collection[int] = (),
    choice: int = 0,
    position: int = 0,
    mask: NDArray[np.int32] | None = None,
    purpose: str = "",
) -> int | None:
    """The token's id; None if there is none left to choose from."""
    with np.errstate(over="ignore"):
        row = _penalized(params, _biased(params, logits, end_tokens), history)
    if mask is not None:
        bits = np.unpackbits(np.ascontiguousarray(mask).view(np.uint8), bitorder="little")
        row[bits[: len(row)] == 0] = -np.inf
    if row.max() == -np.inf:
        return None
    if params.temperature == 0.0:
        return int(row.argmax())
    # (score, id), the best first and of equals the lowest id
    negated = float(row.max()) - row.astype(np.float64)
    ids = np.flatnonzero(row > -np.inf)
    ids = ids[negated[ids].argsort(kind="stable")]
    ranked = list(zip(negated[ids].tolist(), ids.tolist(), strict=True))
    ranked = _top_k(params, _top_n_sigma(params, ranked, row))
    kept = _min_p(params, _top_p(params, _typical_p(params, ranked), row))
    kept.sort(key=lambda entry: entry[1])
    below_best = np.array([-negated for negated, _ in kept])
    with np.errstate(over="ignore"):
        weights = np.exp((below_best - below_best.max()) / params.temperature)
    mass = np.cumsum(weights)
    drawn = uniform(params.seed, choice, position, purpose) * mass[-1]
    place = next((place for place, sum_ in enumerate(mass) if sum_ > drawn), len(kept) - 1)
    return kept[place][1]


Ranked = list[tuple[float, int]]


def _biased(params: SamplingParams, logits: Row, end_tokens: Collection[int]) -> Row:
    row = logits.copy()
    total: dict[int, float] = {}
    for token, bias in params.logit_bias:
        total[token] = total.get(token, 0.0) + bias
    for token, bias in total.items():
        row[token] += np.float32(-np.inf if bias <= -100 else min(bias, 1e30))
    if params.ignore_eos:
        row[list(end_tokens)] = -np.inf
    return row


def _penalized(params: SamplingParams, row: Row, history: Sequence[int]) -> Row:
    last_n = len(history) if params.repeat_last_n < 0 else params.repeat_last_n
    given = (params.repeat_penalty, params.frequency_penalty, params.presence_penalty)
    if given == (1.0, 0.0, 0.0) or last_n == 0:
        return row
    repeat = np.float32(max(params.repeat_penalty, 1e-30))
    frequency, presence = np.float32(given[1]), np.float32(given[2])
    for token, times in Counter(history[-last_n:]).items():
        value = row[token] * repeat if row[token] <= 0 else row[token] / repeat
        value -= np.float32(times) * frequency + presence
        row[token] = min(value, np.float32(3e38))
    return row


def _top_n_sigma(params: SamplingParams, ranked: Ranked, row: Row) -> Ranked:
    if params.top_n_sigma == 0.0:
        return ranked
    sigma = float(np.std(row[row > -np.inf], dtype=np.float64))
    return [entry for entry in ranked if entry[0] <= params.top_n_sigma * sigma]


def _top_k(params: SamplingParams, ranked: Ranked) -> Ranked:
    return ranked[: params.top_k] if params.top_k > 0 else ranked


def _typical_p(params: SamplingParams, ranked: Ranked) -> Ranked:
    if params.typical_p == 1.0:
        return ranked
    ranked = sorted(ranked, key=lambda entry: entry[1])
    weights = np.exp([-negated for negated, _ in ranked])
    chances = weights / weights.sum()
    surprise = -np.log(np.maximum(chances, np.finfo(np.float64).tiny))
    entropy = (chances * surprise).sum()
    nearest = np.argsort(np.abs(surprise - entropy), kind="stable").tolist()
    mass = 0.0
    for n_kept, place in enumerate(nearest, start=1):
        mass += chances[place]
        if mass > params.typical_p:
            nearest = nearest[:n_kept]
            break
    return sorted(ranked[place] for place in nearest)


def _top_p(params: SamplingParams, ranked: Ranked, row: Row) -> Ranked:
    if params.top_p == 1.0:
        return ranked
    mass = np.cumsum(np.exp([-negated for negated, _ in ranked]))
    whole = mass[-1]
    is_whole = not 0 < params.top_k < len(row) and params.top_n_sigma == 0.0
    if is_whole and params.typical_p == 1.0 and params.min_p > 0.0:
        # summed in single precision, which is cheaper where only min-p thins the row out
        whole = np.exp(row - row.max()).sum(dtype=np.float64)
    n_kept = next((n for n, sum_ in enumerate(mass, 1) if sum_ >= params.top_p * whole), None)
    return ranked[:n_kept]


def _min_p(params: SamplingParams, ranked: Ranked) -> Ranked:
    if params.min_p == 0.0:
        return ranked
    least = -ranked[0][0] + float(np.log(params.min_p))
    return [(negated, token) for negated, token in ranked if -negated >= least]
