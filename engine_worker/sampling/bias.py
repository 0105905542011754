"""Biases and penalties: which logits change before the sampler chain, and by how much.

They touch few tokens of a row, so no row is copied: a plan lists places of the matrix, and becomes
`ChangedLogits` when the logits are there. Single precision, as in llama.cpp.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain
from typing import NamedTuple, Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine_worker.backend.candidates import ChangedLogits, Logits, MaskWords, Places, RowMasks
from gpufc.errors import DecodeFailed, InvalidRequest
from gpufc.sampling import SamplingParams

BAN = -100.0
"""OpenAI's bias that bans a token."""

_LARGEST = np.float32(3.0e38)
_ALL = 1 << 31
"""More tokens than any vocabulary has."""


NO_PENALTIES = (1.0, 0.0, 0.0)


class LogitBias(Struct, frozen=True):
    """The biases and penalties of one sequence. `last_n` is 0 if no token is ever penalized."""

    ids: Places
    bias: Logits
    last_n: int = 0
    penalties: tuple[float, float, float] = NO_PENALTIES
    """Repeat, frequency, presence."""

    @classmethod
    def of(
        cls, params: SamplingParams, n_vocab: int, end_tokens: Collection[int] = ()
    ) -> Self | None:
        """The biases that the parameters ask for, without penalties; None without any.

        Raises `InvalidRequest` for a token outside the vocabulary and for a bias that is NaN or
        infinite.
        """
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
        if not biases:
            return None
        return cls(np.array(list(biases), np.int64), np.array(values, np.float32))

    def penalized(self, history: Sequence[int], n_history: int) -> Sequence[int]:
        """The tokens to penalize after the first `n_history` of a history."""
        start = 0 if self.last_n < 0 else max(0, n_history - self.last_n)
        return history[start:n_history] if self.last_n else ()

    def plan(self, history: Sequence[int], n_history: int) -> "BiasPlan":
        """The changes of one row. Implements `samplers.port.Edit`."""
        return plan_biases(_ALL, [0], [self], [self.penalized(history, n_history)])


class BiasPlan(NamedTuple):
    """The changes of a step's logits, made before the logits are known.

    `places` in the flat matrix (row * n_vocab + id), each once; `bias` is added to the logit. Then
    a token that has occurred `times` is penalized; `penalties` has shape (3, len(places)): repeat,
    frequency, presence.
    """

    places: Places
    bias: Logits
    times: Logits | None = None
    penalties: Logits | None = None

    def within(self, masks: RowMasks, n_vocab: int) -> "BiasPlan":
        """The plan without the tokens that masks forbid."""
        rows = self.places // n_vocab
        kept = masks.allow(rows, self.places - rows * n_vocab)
        return self._at(kept, self.places[kept])

    def among(self, ids: Places) -> "BiasPlan":
        """The plan of one row that has only the tokens `ids` left, rising, by place."""
        at = np.minimum(ids.searchsorted(self.places), len(ids) - 1)
        kept = ids[at] == self.places
        return self._at(kept, at[kept])

    def _at(self, kept: NDArray[np.bool_], places: Places) -> "BiasPlan":
        """The plan of the kept tokens, which are at these places."""
        return BiasPlan(
            places,
            self.bias[kept],
            None if self.times is None else self.times[kept],
            None if self.penalties is None else self.penalties[:, kept],
        )

    def on(self, flat: Logits) -> ChangedLogits:
        """The plan carried out on the flat matrix, which is not modified.

        Raises `DecodeFailed` if a logit that would change is NaN or +inf: afterwards it might look
        like a sound one.
        """
        before = flat[self.places]
        if not len(self.places):
            return ChangedLogits(self.places, before, before)
        if not (before < np.inf).all():
            raise unusable()
        with np.errstate(invalid="ignore"):
            after = before + self.bias
            if self.times is not None and self.penalties is not None:
                after = _penalized(after, self.times, self.penalties)
        return ChangedLogits(self.places, before, after)


NO_BIAS = BiasPlan(np.empty(0, np.int64), np.empty(0, np.float32))


def plan_biases(
    n_vocab: int,
    rows: Sequence[int],
    biases: Sequence[LogitBias],
    penalized: Sequence[Sequence[int]],
) -> BiasPlan:
    """The changes of `rows` of logits, with a bias and its `penalized` tokens for each row."""
    if not rows:
        return NO_BIAS
    if len(rows) == 1:
        return _plan_of_row(rows[0] * n_vocab, biases[0], penalized[0])
    starts = np.array(rows) * n_vocab
    places = np.concatenate([one.ids for one in biases])
    places += np.repeat(starts, [len(one.ids) for one in biases])
    bias = np.concatenate([one.bias for one in biases])
    lengths = [len(tokens) for tokens in penalized]
    if not any(lengths):
        return BiasPlan(places, bias)
    occurred = np.fromiter(chain.from_iterable(penalized), np.int64, sum(lengths))
    occurred += np.repeat(starts, lengths)
    places, inverse = np.unique(np.concatenate((occurred, places)), return_inverse=True)
    added = np.zeros(len(places), np.float32)
    added[inverse[len(occurred) :]] = bias
    times = np.bincount(inverse[: len(occurred)], minlength=len(places)).astype(np.float32)
    penalties = np.ones((max(rows) + 1, 3), np.float32)
    penalties[rows] = [one.penalties for one in biases]
    return BiasPlan(places, added, times, penalties[places // n_vocab].T)


def _plan_of_row(start: int, bias: LogitBias, penalized: Sequence[int]) -> BiasPlan:
    """The changes of the row with its first logit at `start`. After a pass of the model numpy takes
    twice as long to count the tokens of a single row."""
    if not penalized:
        return BiasPlan(bias.ids + start, bias.bias)
    times = Counter(dict.fromkeys(bias.ids.tolist(), 0))
    times.update(penalized)
    n_places = len(times)
    added = np.zeros(n_places, np.float32)
    added[: len(bias.bias)] = bias.bias
    return BiasPlan(
        np.fromiter(times, np.int64, n_places) + start,
        added,
        np.fromiter(times.values(), np.float32, n_places),
        np.full((n_places, 3), bias.penalties, np.float32).T,
    )


def plan_bias(
    bias: LogitBias | None, n_vocab: int, penalized: Sequence[int], mask: MaskWords | None
) -> BiasPlan:
    """`plan_biases` of one row by itself, within its mask."""
    if bias is None:
        return NO_BIAS
    plan = plan_biases(n_vocab, [0], [bias], [penalized])
    return (
        plan if mask is None else plan.within(RowMasks(np.zeros(1, np.intp), mask[None]), n_vocab)
    )


def unusable() -> DecodeFailed:
    """The error for a row with a largest logit that is NaN, infinite, or -inf.

    NaN wins every maximum. -inf alone is legal, since some models mask tokens so, but not as the
    largest logit.
    """
    return DecodeFailed("the model computed logits that are not finite (NaN or infinite)")


def _penalized(values: Logits, times: Logits, penalties: Logits) -> Logits:
    """llama.cpp's penalties of tokens that have occurred `times`; 0: not penalized."""
    repeat, frequency, presence = penalties
    with np.errstate(over="ignore"):
        lower = np.where(values <= 0, values * repeat, values / repeat)
        lower -= times * frequency + presence
    return np.where(times > 0, np.minimum(lower, _LARGEST), values)
