"""Turns of LoRA adapters. llama.cpp applies adapters to a whole context, so all sequences of a step
have the same ones. Pure."""

from collections.abc import Iterable

from engine_worker.scheduling.plan import Plan
from engine_worker.text.sequence import Sequence
from gpufc.adapters import Adapters


class AdapterTurns:
    """Which sequences the next step may compute: those with the adapters whose turn it is.

    Each set of adapters that any sequence has gets one step in turn. While no sequence has any,
    every sequence may be computed, and the turns cost nothing.
    """

    def __init__(self) -> None:
        self._turn: Adapters = ()
        self._n_adapted = 0  # sequences with adapters

    def arrived(self, sequence: Sequence) -> None:
        """A new sequence waits."""
        self._n_adapted += bool(sequence.spec.adapters)

    def ended(self, sequence: Sequence) -> None:
        """A sequence that had arrived is no more."""
        self._n_adapted -= bool(sequence.spec.adapters)
        if not self._n_adapted:
            self._turn = ()

    def of(self, sequences: list[Sequence]) -> list[Sequence]:
        """The sequences, in their order, that the next step may compute."""
        if not self._n_adapted:
            return sequences
        return [seq for seq in sequences if seq.spec.adapters == self._turn]

    def settle(self, sequences: Iterable[Sequence]) -> None:
        """Give the turn to adapters that one of `sequences`, all that could be computed, has."""
        if not self._n_adapted:
            return
        known = dict.fromkeys(seq.spec.adapters for seq in sequences)
        if self._turn not in known:
            self._turn = next(iter(known), ())

    def most_tokens(self, batch_tokens: int) -> int:
        """Any number."""
        return batch_tokens

    def passed(self, plan: Plan, sequences: Iterable[Sequence]) -> None:
        """A step has been computed: the next set of adapters has its turn."""
        if not self._n_adapted:
            return
        known = list(dict.fromkeys(seq.spec.adapters for seq in sequences))
        after = known.index(self._turn) + 1 if self._turn in known else 0
        self._turn = known[after % len(known)] if known else ()
