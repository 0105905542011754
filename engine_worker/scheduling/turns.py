"""The port for policies that let only some sequences compute in a step. Pure."""

import collections.abc
from typing import Protocol

from engine_worker.scheduling.plan import Plan
from engine_worker.text.sequence import Sequence

LONGEST_S = 0.25
"""Of steps with prompts while streams wait for their turn: their next tokens come so much later."""


class Turns(Protocol):
    """Decides which sequences the next step may compute. Asking changes nothing."""

    def arrived(self, sequence: Sequence) -> None:
        """A new sequence waits."""
        ...

    def ended(self, sequence: Sequence) -> None:
        """A sequence that had arrived is no more."""
        ...

    def settle(self, sequences: collections.abc.Iterable[Sequence]) -> None:
        """Decide for the next step, given all sequences that could be computed. To settle again
        with the same sequences decides the same."""
        ...

    def of(self, sequences: list[Sequence]) -> list[Sequence]:
        """The sequences, in their order, that the next step may compute. Of all that it was settled
        with it leaves one at least."""
        ...

    def most_tokens(self, batch_tokens: int) -> int:
        """Tokens of prompts that the next step may compute, of `batch_tokens` that fit into it."""
        ...

    def passed(self, plan: Plan, sequences: collections.abc.Iterable[Sequence]) -> None:
        """A step has been computed; these are the sequences that could be computed now."""
        ...


class AllAtOnce:
    """Every sequence may be computed in every step. Other turns are put over these."""

    def arrived(self, sequence: Sequence) -> None:
        pass

    def ended(self, sequence: Sequence) -> None:
        pass

    def settle(self, sequences: collections.abc.Iterable[Sequence]) -> None:
        pass

    def of(self, sequences: list[Sequence]) -> list[Sequence]:
        return sequences

    def most_tokens(self, batch_tokens: int) -> int:
        return batch_tokens

    def passed(self, plan: Plan, sequences: collections.abc.Iterable[Sequence]) -> None:
        pass
