"""DRY, "don't repeat yourself": a token that would go on with a repetition loses logits.

A repetition is a stretch of the history that equals its end. The longer it is, the larger is the
penalty of the token that came after it. Breakers, such as line breaks, end a repetition.
"""

import math
from collections.abc import Sequence

import numpy as np

from engine_worker.backend.candidates import Places
from engine_worker.sampling.bias import BiasPlan
from engine_worker.sampling.samplers.breakers import Tails
from engine_worker.sampling.samplers.port import Model
from gpufc.sampling import SamplingParams

MAX_REPEAT = 512
"""Tokens beyond the allowed length after which a repetition counts as no longer. It bounds a step's
work in a long context of equal tokens. The penalty ends the repetition long before."""

_LOG_OF_LARGEST = 88.7228391
"""llama.cpp's: the penalty is a number in single precision."""

_FLATTEST_BASE = 1.000001
"""llama.cpp's: a base up to this has no largest exponent."""

_LARGEST_PENALTY = 1e30
"""It leaves a logit finite."""

_FEW = 32
"""Up to one place in so many is followed by its index; more are compared in a row."""


class Dry:
    """Implements `Edit`. Immutable."""

    @classmethod
    def of(cls, params: SamplingParams, model: Model) -> "Dry | None":
        """None if it is off."""
        if params.dry_multiplier == 0.0 or params.dry_penalty_last_n == 0:
            return None
        return cls(params, model.tails(params.dry_sequence_breakers))

    def __init__(self, params: SamplingParams, tails: Tails) -> None:
        self._multiplier, self._base = params.dry_multiplier, params.dry_base
        self._allowed = params.dry_allowed_length
        self._last_n = params.dry_penalty_last_n
        self._tails = tails
        self._heads = np.array(sorted(tails), np.int64)
        self._exempt = np.array([token for token, few in tails.items() if () in few], np.int64)
        most = MAX_REPEAT
        if params.dry_base > _FLATTEST_BASE:
            most = min(most, int(_LOG_OF_LARGEST / math.log(params.dry_base)))
        self._most = self._allowed + most

    def plan(self, history: Sequence[int], n_history: int) -> BiasPlan:
        start = 0 if self._last_n < 0 else max(0, n_history - self._last_n)
        latest = np.array(history[start:n_history], np.int64)[::-1]
        tokens, lengths = np.empty(0, np.int64), np.empty(0, np.int64)
        if len(latest) > self._allowed:
            limit = self._up_to_breaker(latest)
            if limit >= self._allowed:
                tokens, lengths = repeated(latest, self._allowed, min(limit, self._most))
        kept = ~np.isin(tokens, self._exempt)
        tokens, beyond = tokens[kept], lengths[kept] - self._allowed
        penalties = np.minimum(self._multiplier * self._base**beyond, _LARGEST_PENALTY)
        return BiasPlan(tokens, -penalties.astype(np.float32))

    def _up_to_breaker(self, latest: Places) -> int:
        """The number of latest tokens after the last breaker; all of them without one."""
        for at in np.isin(latest, self._heads).nonzero()[0].tolist():
            followed = [
                len(tail)
                for tail in self._tails[int(latest[at])]
                if len(tail) <= at and tuple(latest[at - len(tail) : at][::-1].tolist()) == tail
            ]
            if followed:
                return int(at) - max(followed)
        return len(latest)


def repeated(latest: Places, least: int, most: int) -> tuple[Places, Places]:
    """The tokens that would go on with a repetition, by rising id, and the length of the longest
    one: at least `least`, at most `most`.

    `latest` is the history from its end to its beginning, longer than `least`.
    """
    lengths = _lengths(latest, most)
    # a stretch that ends before the token at `end - 1` would go on with that token
    ends = (lengths[1:] >= least).nonzero()[0] + 1
    tokens, inverse = np.unique(latest[ends - 1], return_inverse=True)
    longest = np.zeros(len(tokens), np.int64)
    np.maximum.at(longest, inverse, lengths[ends])
    return tokens, longest


def _lengths(latest: Places, most: int) -> Places:
    """For each place, how many of the tokens from there on equal those from the beginning on."""
    lengths = np.zeros(len(latest), np.int64)
    equal = np.ones(len(latest) - 1, np.bool_)  # from place 1 on, as far as looked at
    for length in range(1, most + 1):
        equal = equal[: len(latest) - length]
        equal &= latest[length:] == latest[length - 1]
        lengths[1 : len(equal) + 1] += equal
        if np.count_nonzero(equal) <= len(latest) // _FEW:
            return _few_lengths(latest, most, lengths, equal.nonzero()[0] + 1, length)
    return lengths


def _few_lengths(latest: Places, most: int, lengths: Places, places: Places, length: int) -> Places:
    """`_lengths`, where few places have the first `length` tokens in common."""
    while len(places) and length < most:
        places = places[: places.searchsorted(len(latest) - length)]
        places = places[latest[places + length] == latest[length]]
        length += 1
        lengths[places] = length
    return lengths
