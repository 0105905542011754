"""Turns of LoRA adapters. llama.cpp applies adapters to a whole context, so all sequences of a step
have the same ones. Pure."""

from collections.abc import Iterable

from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.rota import Rota
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.scheduling.turns import LONGEST_S, Turns
from engine_worker.text.sequence import Sequence
from gpufc.adapters import Adapters
from gpufc.protocol import MIN_CHUNK

TURN_S = 0.04
"""For so long a set waits for turns of several steps of all others. Other adapters make llama.cpp
reserve its graph again, which takes as long as a step of a small model on two cores."""


class AdapterTurns:
    """Which sequences the next step may compute: those with the adapters whose turn it is.

    `inner` decides first. Each set of adapters that any sequence has gets a turn, so that a stream
    has a token in each round. A turn is one step, or as many steps without prompts as its share of
    `TURN_S` has room for. Prompts of all other sets take at most `LONGEST_S` of a round together,
    or `MIN_CHUNK` tokens each. While all sequences have one set, the turns cost nothing.
    """

    def __init__(self, inner: Turns, costs: StepCosts) -> None:
        self._inner = inner
        self._costs = costs
        self._rota: Rota[Adapters] = Rota()
        self._turn: Adapters | None = None
        self._spent_s = 0.0  # of the turn
        self._n_others = 0  # sets whose turn it is not
        self._streams_wait = False

    def arrived(self, sequence: Sequence) -> None:
        self._inner.arrived(sequence)
        self._rota.arrived(sequence.spec.adapters)

    def ended(self, sequence: Sequence) -> None:
        self._inner.ended(sequence)
        self._rota.ended(sequence.spec.adapters)

    def of(self, sequences: list[Sequence]) -> list[Sequence]:
        may = self._inner.of(sequences)
        if len(self._rota) < 2:
            return may
        return [seq for seq in may if seq.spec.adapters == self._turn]

    def settle(self, sequences: Iterable[Sequence]) -> None:
        if len(self._rota) < 2:
            self._inner.settle(sequences)
            self._n_others = 0
            return
        known = list(sequences)
        self._inner.settle(known)
        may = self._inner.of(known)
        sets = {seq.spec.adapters for seq in may}
        turn = self._rota.next_of(sets)
        if turn != self._turn:
            self._turn, self._spent_s = turn, 0.0
        self._n_others = max(0, len(sets) - 1)
        self._streams_wait = any(s.is_decoding and s.spec.adapters != self._turn for s in may)

    def most_tokens(self, batch_tokens: int) -> int:
        most = self._inner.most_tokens(batch_tokens)
        if not (self._n_others and self._streams_wait):
            return most
        share = self._costs.tokens_within(LONGEST_S / self._n_others, batch_tokens)
        return min(most, max(MIN_CHUNK, share))

    def passed(self, plan: Plan, sequences: Iterable[Sequence]) -> None:
        """The next set of adapters has its turn, unless one more step like this one fits."""
        if self._turn is not None and not self._has_time_after(plan):
            self._rota.had_turn(self._turn)
            self._spent_s = 0.0
        self._inner.passed(plan, sequences)

    def _has_time_after(self, plan: Plan) -> bool:
        step_s = self._costs.seconds(plan.n_tokens, plan.n_rows)
        if step_s is None or plan.is_prefill or not plan.work:
            return False
        self._spent_s += step_s
        return self._spent_s + step_s <= TURN_S / max(1, self._n_others)
