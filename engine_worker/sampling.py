"""How one token is chosen from a row of logits: llama.cpp's sampler chain, without its state.

The order is llama.cpp's: logit bias → penalties → top-k → typical-p → top-p → min-p → temperature
→ draw (src/llama-sampler.cpp; the tests compare with it). What differs on purpose: a bias of -100
or less bans the token, ties fall to the lowest id, and the random number is a function of
(seed, choice, position) instead of a generator's state, so that a replay draws the same.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from gpufc.errors import DecodeFailed, InvalidRequest
from gpufc.sampling import SamplingParams

Row = NDArray[np.float32]
Ids = NDArray[np.intp]
Weights = NDArray[np.float64]

BAN = -100.0
"""OpenAI's bias that bans a token."""

_MARGINS = (5.0, 10.0, 20.0)
"""How far below the best logit the top k are looked for, before all of the row is."""

_FINITE_MAX = np.float32(3.0e38)


def uniform(seed: int, choice: int, position: int) -> float:
    """The random number in [0, 1) for one token. 53 bits of BLAKE2b over the three numbers."""
    text = b"%d/%d/%d" % (seed, choice, position)
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 11) * 2.0**-53


def require_finite(logits: NDArray[np.float32]) -> None:
    """Raises `DecodeFailed` for a row with NaN or +inf, or without any finite logit.

    One pass: NaN wins every maximum. A logit of -inf is legal (some models mask tokens so).
    """
    if not np.isfinite(logits.max(axis=1)).all():
        raise DecodeFailed("the model computed logits that are not finite (NaN or infinite)")


class Sampler:
    """Chooses tokens for one sequence. Immutable once made; safe in any thread.

    Raises `InvalidRequest` for a bias on a token outside the vocabulary, or one that is no number.
    """

    def __init__(
        self, params: SamplingParams, n_vocab: int, end_tokens: Collection[int] = ()
    ) -> None:
        self._params = params
        self._bias_ids, self._bias = _biases(params, n_vocab, end_tokens)
        self._penalizes = params.repeat_last_n != 0 and (
            params.repeat_penalty != 1.0
            or params.frequency_penalty != 0.0
            or params.presence_penalty != 0.0
        )

    def choose(self, logits: Row, history: Sequence[int], choice: int, position: int) -> int:
        """The next token's id.

        `logits` has shape (n_vocab,) and is not modified. `history` holds the prompt's and all
        generated tokens. `position` counts the generated tokens before this one. Raises
        `InvalidRequest` when biases leave no token to choose from: this ends the request only.
        """
        row = self._adjusted(logits, history)
        if self._params.temperature == 0.0:
            token = int(row.argmax())
            _require_choice(row[token])
            return token
        # by rising id, not by rank: when a replay's logits differ in the last bits, equals that
        # change places do not change the draw
        ids, weights = self._survivors(row)
        total = np.cumsum(weights)
        drawn = uniform(self._params.seed, choice, position) * total[-1]
        return int(ids[min(int(total.searchsorted(drawn, side="right")), len(ids) - 1)])

    def distribution(self, logits: Row, history: Sequence[int]) -> tuple[Ids, Weights]:
        """The tokens that `choose` draws from, by rising id, and their probabilities."""
        row = self._adjusted(logits, history)
        if self._params.temperature == 0.0:
            return np.array([row.argmax()], np.intp), np.ones(1)
        ids, weights = self._survivors(row)
        return ids, weights / weights.sum()

    def _adjusted(self, logits: Row, history: Sequence[int]) -> Row:
        """The row with biases and penalties applied; a copy only if there are any."""
        if not self._penalizes and not len(self._bias_ids):
            return logits
        row = logits.copy()
        row[self._bias_ids] += self._bias
        if self._penalizes:
            self._penalize(row, history)
        return row

    def _penalize(self, row: Row, history: Sequence[int]) -> None:
        params = self._params
        recent = history if params.repeat_last_n < 0 else history[-params.repeat_last_n :]
        counts = Counter(recent)
        ids = np.fromiter(counts.keys(), np.intp, len(counts))
        times = np.fromiter(counts.values(), np.float32, len(counts))
        values = row[ids]
        # above zero in single precision too: a banned token (-inf) times zero would be no number
        penalty = max(params.repeat_penalty, 1e-30)
        with np.errstate(over="ignore"):
            values = np.where(values <= 0, values * penalty, values / penalty)
            values -= times * np.float32(params.frequency_penalty) + np.float32(
                params.presence_penalty
            )
        row[ids] = np.minimum(values, _FINITE_MAX)

    def _survivors(self, row: Row) -> tuple[Ids, Weights]:
        """Ids, rising, and weights that are not normalized: the chain after penalties."""
        params = self._params
        best = row.max()
        _require_choice(best)
        ids = self._candidates(row, float(best))
        # in double precision: the order of summation must not decide who survives
        scores = row[ids].astype(np.float64) - float(best)
        if 0 < params.top_k < len(ids):
            keep = _largest(scores, params.top_k)
            ids, scores = ids[keep], scores[keep]
        if params.typical_p < 1.0:
            keep = _typical(scores, params.typical_p)
            ids, scores = ids[keep], scores[keep]
        if params.top_p < 1.0:
            mass = np.cumsum(np.exp(np.sort(scores)[::-1]))
            whole = self._whole_mass(row, float(best), float(mass[-1]))
            keep = _largest(scores, int(mass.searchsorted(params.top_p * whole)) + 1)
            ids, scores = ids[keep], scores[keep]
        top = scores.max()
        if params.min_p > 0.0:
            keep = scores >= top + math.log(params.min_p)
            ids, scores = ids[keep], scores[keep]
        return ids, np.exp((scores - top) / params.temperature)

    def _candidates(self, row: Row, best: float) -> Ids:
        """Ids, rising, of at least those tokens that the chain can keep, without banned ones."""
        params = self._params
        if 0 < params.top_k < len(row):
            for margin in _MARGINS:
                ids = np.flatnonzero(row > np.float32(best - margin))
                if len(ids) >= params.top_k:
                    return ids
        elif params.typical_p >= 1.0 and params.min_p > 0.0:
            # a hair below the threshold, which is applied in double precision later
            return np.flatnonzero(row >= np.float32(best + math.log(params.min_p) - 1e-3))
        return np.flatnonzero(row > -np.inf)

    def _whole_mass(self, row: Row, best: float, candidates: float) -> float:
        """What top-p is a share of: where min-p has already thinned the candidates out, which
        top-p comes before, the mass of all tokens."""
        params = self._params
        if 0 < params.top_k < len(row) or params.typical_p < 1.0 or params.min_p == 0.0:
            return candidates
        return float(np.exp(row - np.float32(best)).sum(dtype=np.float64))


def _biases(params: SamplingParams, n_vocab: int, end_tokens: Collection[int]) -> tuple[Ids, Row]:
    biases: dict[int, float] = {}
    for token, bias in params.logit_bias:
        if not 0 <= token < n_vocab:
            raise InvalidRequest(f"token {token} is not in the vocabulary", param="logit_bias")
        if not np.isfinite(bias):
            raise InvalidRequest(f"the bias of token {token} is not finite", param="logit_bias")
        biases[token] = biases.get(token, 0.0) + bias
    if params.ignore_eos:
        biases.update(dict.fromkeys(end_tokens, -np.inf))
    values = [-np.inf if bias <= BAN else min(bias, 1e30) for bias in biases.values()]
    return np.array(list(biases), np.intp), np.array(values, np.float32)


def _require_choice(best: np.float32) -> None:
    if best == -np.inf:
        raise InvalidRequest("the biases leave no token to choose from", param="logit_bias")


def _largest(scores: Weights, n: int) -> Ids:
    """Places, rising, of the `n` largest; of equal ones, the first."""
    if n >= len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, len(scores) - n)[len(scores) - n]
    larger = scores > least
    equal = np.flatnonzero(scores == least)
    larger[equal[: n - int(larger.sum())]] = True
    return np.flatnonzero(larger)


def _typical(scores: Weights, share: float) -> Ids:
    """Places kept by locally typical sampling (Meister et al. 2022), ascending: those whose
    surprise is nearest to the entropy, until they hold more than `share` of the mass."""
    weights = np.exp(scores)
    chances = weights / weights.sum()
    surprise = -np.log(np.maximum(chances, np.finfo(np.float64).tiny))
    entropy = float((chances * surprise).sum())
    nearest = np.argsort(np.abs(surprise - entropy), kind="stable")
    n_kept = int(np.cumsum(chances[nearest]).searchsorted(share, side="right")) + 1
    return np.sort(nearest[:n_kept])
