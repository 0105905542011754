"""The port of the samplers that work on one row by itself. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from msgspec import Struct

from engine_worker.backend.candidates import Places
from engine_worker.sampling.bias import BiasPlan
from engine_worker.sampling.chain import Mask, Scores
from engine_worker.sampling.samplers.breakers import Tails

State = tuple[float, ...]
"""The state that a sampler carries from one token to the next; empty for most."""

TailsOf = Callable[[tuple[str, ...]], Tails]
"""Looks a request's breakers up (`breakers`)."""

_LARGEST = 1e30
"""Logits beyond it are bounded, so that no sum or square of them is infinite."""


class Row(NamedTuple):
    """The tokens that are left of one row, at least one: `ids`, rising, and finite `logits`."""

    ids: Places
    logits: Scores

    def kept(self, which: "Mask | Places") -> "Row":
        """The row with some of its tokens, by a mask or by rising places."""
        return Row(self.ids[which], self.logits[which])

    def with_logits(self, logits: Scores) -> "Row":
        """The same tokens with other logits, bounded."""
        return Row(self.ids, np.clip(logits, -_LARGEST, _LARGEST))

    def likeliest(self, count: int) -> "Row":
        """The tokens with the `count` largest logits, and all that tie with the last of them."""
        if count >= len(self.ids):
            return self
        return self.kept(self.logits >= np.partition(self.logits, -count)[-count])

    def best(self) -> "Row":
        """The token with the largest logit; of equal ones, the lowest id."""
        return self.kept(np.array([self.logits.argmax()]))

    def chances(self) -> Scores:
        """The probability of each token."""
        weights = np.exp(self.logits - self.logits.max())
        chances: Scores = weights / weights.sum()
        return chances


class Model(Struct, frozen=True):
    """What a sampler may know of the model."""

    n_vocab: int
    tails: TailsOf = lambda _: {}


class Moment(Struct, frozen=True):
    """What a sampler may use besides the row.

    The first `n_history` tokens of `history` come before the token that is chosen. `random` gives
    the position's random number in [0, 1) for a purpose. `state` is that after the token before.
    """

    history: Sequence[int]
    n_history: int
    random: Callable[[str], float]
    state: State = ()


@runtime_checkable
class Edit(Protocol):
    """A sampler that changes the logits of few tokens, by the history."""

    def plan(self, history: Sequence[int], n_history: int) -> BiasPlan:
        """The changes of one row after the first `n_history` tokens: ids are places."""
        ...


@runtime_checkable
class Stage(Protocol):
    """A sampler that drops tokens of a row or changes their logits. Immutable."""

    def apply(self, row: Row, moment: Moment) -> Row:
        """The row after this sampler. It has at least one token."""
        ...


class Remembering(Stage, Protocol):
    """The last stage, with a state that depends on the tokens chosen."""

    @property
    def start(self) -> State:
        """The state before the first generated token."""
        ...

    def after(self, row: Row, place: int, state: State) -> State:
        """The state once the token at `place` of the row that it left has been chosen."""
        ...
