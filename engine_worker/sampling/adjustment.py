"""Biases and penalties: the logits that change before the sampler chain, and what they become.

They touch few tokens of a row, so that nothing here copies rows: the result lists the places and
their new values, which `applied` writes into the logits for a while. Single precision, as in
llama.cpp.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gpufc.errors import InvalidRequest
from gpufc.sampling import SamplingParams

Logits = NDArray[np.float32]
Places = NDArray[np.int64]

BAN = -100.0
"""OpenAI's bias that bans a token."""

_LARGEST = np.float32(3.0e38)


class Changes(NamedTuple):
    """What happens to the logits at `places` of the flat matrix (row * n_vocab + id), each once:
    `bias` is added, then they are penalized for having occurred `times`, if any are."""

    places: Places
    bias: Logits
    times: Logits | None = None
    penalties: Logits | None = None
    """Shape (3, len(places)): repeat, frequency, presence."""


class Adjusted(NamedTuple):
    """Changed logits: `places` in the flat matrix, each once, and `values`."""

    places: Places
    values: Logits


class Adjustment(Struct, frozen=True):
    """One sequence's biases and penalties. `last_n` is 0 if nothing is penalized."""

    bias_ids: Places
    bias: Logits
    last_n: int
    penalties: tuple[float, float, float]
    """Repeat, frequency, presence."""

    def recent(self, history: Sequence[int], n_history: int) -> Sequence[int]:
        """Those of the first `n_history` tokens that are penalized."""
        start = 0 if self.last_n < 0 else max(0, n_history - self.last_n)
        return history[start:n_history] if self.last_n else ()


def adjustment(
    params: SamplingParams, n_vocab: int, end_tokens: Collection[int] = ()
) -> Adjustment | None:
    """What the parameters ask for, None if no logit ever changes.

    Raises `InvalidRequest` for a bias on a token outside the vocabulary, or one that is no number.
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
    # a penalty above zero in single precision too: a banned token (-inf) times zero is no number
    penalties = (
        max(params.repeat_penalty, 1e-30),
        params.frequency_penalty,
        params.presence_penalty,
    )
    last_n = params.repeat_last_n if penalties != (1.0, 0.0, 0.0) else 0
    if not biases and last_n == 0:
        return None
    return Adjustment(
        np.array(list(biases), np.int64), np.array(values, np.float32), last_n, penalties
    )


def changes(
    n_vocab: int,
    rows: Sequence[int],
    adjustments: Sequence[Adjustment],
    recents: Sequence[Sequence[int]],
) -> Changes:
    """What becomes of `rows` of logits, of which nothing need be known yet.

    For each of `rows` an adjustment, and the tokens that `Adjustment.recent` gives for it.
    """
    if not rows:
        return Changes(np.empty(0, np.int64), np.empty(0, np.float32))
    if len(rows) == 1 and not recents[0]:
        return Changes(adjustments[0].bias_ids + rows[0] * n_vocab, adjustments[0].bias)
    starts = np.array(rows) * n_vocab
    places = np.concatenate([adjustment.bias_ids for adjustment in adjustments])
    places += np.repeat(starts, [len(adjustment.bias_ids) for adjustment in adjustments])
    bias = np.concatenate([adjustment.bias for adjustment in adjustments])
    lengths = [len(recent) for recent in recents]
    if not any(lengths):
        return Changes(places, bias)
    penalized = np.fromiter(chain.from_iterable(recents), np.int64, sum(lengths))
    penalized += np.repeat(starts, lengths)
    places, inverse = np.unique(np.concatenate((penalized, places)), return_inverse=True)
    biases = np.zeros(len(places), np.float32)
    biases[inverse[len(penalized) :]] = bias
    times = np.bincount(inverse[: len(penalized)], minlength=len(places)).astype(np.float32)
    penalties = np.ones((max(rows) + 1, 3), np.float32)
    penalties[rows] = [adjustment.penalties for adjustment in adjustments]
    return Changes(places, biases, times, penalties[places // n_vocab].T)


def adjusted(flat: Logits, wanted: Changes) -> Adjusted:
    """The changed logits. `flat` is not modified; what is not finite in it may be anything here."""
    with np.errstate(invalid="ignore"):
        values = flat[wanted.places] + wanted.bias
        if wanted.times is None or wanted.penalties is None:
            return Adjusted(wanted.places, values)
        return Adjusted(wanted.places, _penalized(values, wanted.times, wanted.penalties))


@contextmanager
def applied(flat: Logits, changed: Adjusted) -> Iterator[None]:
    """While it lasts, flat logits have the changed values; afterwards they are as before."""
    before = flat[changed.places]
    flat[changed.places] = changed.values
    try:
        yield
    finally:
        flat[changed.places] = before


def _penalized(values: Logits, times: Logits, penalties: Logits) -> Logits:
    """llama.cpp's penalties; `times` a token occurs, which is not penalized if that is 0."""
    repeat, frequency, presence = penalties
    with np.errstate(over="ignore"):
        lower = np.where(values <= 0, values * repeat, values / repeat)
        lower -= times * frequency + presence
    return np.where(times > 0, np.minimum(lower, _LARGEST), values)
