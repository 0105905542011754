"""Turns of LoRA adapters. llama.cpp applies adapters to a whole context, so all sequences of a step
have the same ones. Pure."""

from collections.abc import Iterable

from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.turns import Turns
from engine_worker.text.sequence import Sequence
from gpufc.adapters import Adapters


class AdapterTurns:
    """Which sequences the next step may compute: those with the adapters whose turn it is.

    `inner` decides first. Each set of adapters that any sequence has gets one step in turn. While
    no sequence has any, the turns cost nothing.
    """

    def __init__(self, inner: Turns) -> None:
        self._inner = inner
        self._turn: Adapters = ()
        self._n_adapted = 0  # sequences with adapters

    def arrived(self, sequence: Sequence) -> None:
        self._inner.arrived(sequence)
        self._n_adapted += bool(sequence.spec.adapters)

    def ended(self, sequence: Sequence) -> None:
        self._inner.ended(sequence)
        self._n_adapted -= bool(sequence.spec.adapters)
        if not self._n_adapted:
            self._turn = ()

    def of(self, sequences: list[Sequence]) -> list[Sequence]:
        may = self._inner.of(sequences)
        if not self._n_adapted:
            return may
        return [seq for seq in may if seq.spec.adapters == self._turn]

    def settle(self, sequences: Iterable[Sequence]) -> None:
        """Give the turn to adapters that one of the sequences has."""
        if not self._n_adapted:
            self._inner.settle(sequences)
            return
        all_known = list(sequences)
        self._inner.settle(all_known)
        known = dict.fromkeys(seq.spec.adapters for seq in self._inner.of(all_known))
        if self._turn not in known:
            self._turn = next(iter(known), ())

    def most_tokens(self, batch_tokens: int) -> int:
        return self._inner.most_tokens(batch_tokens)

    def passed(self, plan: Plan, sequences: Iterable[Sequence]) -> None:
        """The next set of adapters has its turn."""
        if not self._n_adapted:
            self._inner.passed(plan, sequences)
            return
        all_known = list(sequences)
        self._inner.passed(plan, all_known)
        known = list(dict.fromkeys(seq.spec.adapters for seq in all_known))
        after = known.index(self._turn) + 1 if self._turn in known else 0
        self._turn = known[after % len(known)] if known else ()
