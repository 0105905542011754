"""Turns of single sequences, for a backend that computes one sequence a pass. Pure."""

from collections.abc import Iterable

from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.rota import Rota
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.scheduling.turns import LONGEST_S, Turns
from engine_worker.text.sequence import Sequence
from gpufc.ids import RequestNo
from gpufc.protocol import MIN_CHUNK


class SingleTurns:
    """One sequence computes in each step: of those that `inner` allows, each one in turn.

    While a prompt is being computed, no sequence starts: it could wait for the prefix that this
    prompt is about to have, and a step for it would be empty. Beside other sequences a prompt has
    steps of at most `LONGEST_S`.
    """

    def __init__(self, inner: Turns, costs: StepCosts) -> None:
        self._inner = inner
        self._costs = costs
        self._is_alone = True
        self._rota: Rota[RequestNo] = Rota()
        self._turn: RequestNo | None = None

    def arrived(self, sequence: Sequence) -> None:
        self._inner.arrived(sequence)
        self._rota.arrived(sequence.request)

    def ended(self, sequence: Sequence) -> None:
        self._inner.ended(sequence)
        self._rota.ended(sequence.request)

    def settle(self, sequences: Iterable[Sequence]) -> None:
        known = list(sequences)
        self._inner.settle(known)
        may = self._inner.of(known)
        if any(seq.slot is not None and not seq.is_decoding for seq in may):
            may = [seq for seq in may if seq.slot is not None]
        self._is_alone = len(may) <= 1
        self._turn = self._rota.next_of({seq.request for seq in may})

    def of(self, sequences: list[Sequence]) -> list[Sequence]:
        return [seq for seq in self._inner.of(sequences) if seq.request == self._turn]

    def most_tokens(self, batch_tokens: int) -> int:
        most = self._inner.most_tokens(batch_tokens)
        if self._is_alone:
            return most
        return min(most, max(MIN_CHUNK, self._costs.tokens_within(LONGEST_S, batch_tokens)))

    def passed(self, plan: Plan, sequences: Iterable[Sequence]) -> None:
        """The next sequence has its turn."""
        if self._turn is not None:
            self._rota.had_turn(self._turn)
        self._inner.passed(plan, sequences)
