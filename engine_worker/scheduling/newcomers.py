"""Prompts of other scopes beside a crowd are computed while the crowd waits. Pure.

A *crowd* is the sequences of one scope, which is one key or one group of keys, that has more than
half of all slots. On a CPU each of its rows makes a step longer, and its own prompts compete for
the budget of a step. So another key's first token would take several times as long as without the
crowd. A *newcomer* is a sequence of another scope without a token yet that does not yield to
others. In a step with a newcomer the crowd waits; all others go on. Without keys there is one
scope, the empty one, which is no crowd.

The crowd's streams pause for that, for at most `LONGEST_S` or, where that is less, the time of
`MIN_CHUNK` tokens. Then steps of the crowd's own rows alone would have to take as long in all,
before it waits again; prompts beside these rows are as short as beside any stream.
"""

import collections.abc
from collections import Counter

from engine_worker.backend.profile import Profile
from engine_worker.scheduling.plan import Decode, Plan
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.scheduling.turns import Turns
from engine_worker.text.sequence import Sequence
from gpufc.protocol import MIN_CHUNK

LONGEST_S = 1.0
"""About 250 tokens of a prompt for a small model on two cores."""

NEARLY = 0.95
"""Of `LONGEST_S`: what is left is too short for a step."""


class NewcomersFirst:
    """`inner` decides first. `_owed_s` is the time that crowds have waited, less that of their own
    rows since."""

    def __init__(self, inner: Turns, *, max_running: int, costs: StepCosts) -> None:
        self._inner = inner
        self._least = max_running // 2 + 1
        self._costs = costs
        self._waits: str | None = None  # the crowd's scope, if it waits in the next step
        self._owed_s = 0.0
        self._repays = False

    @classmethod
    def over(cls, inner: Turns, profile: Profile, max_running: int, costs: StepCosts) -> Turns:
        """These turns over `inner` where they pay: a device computes a prompt in little more time
        beside a crowd than without."""
        if profile.on_device or max_running == 1:
            return inner
        return cls(inner, max_running=max_running, costs=costs)

    def arrived(self, sequence: Sequence) -> None:
        self._inner.arrived(sequence)

    def ended(self, sequence: Sequence) -> None:
        self._inner.ended(sequence)

    def settle(self, sequences: collections.abc.Iterable[Sequence]) -> None:
        known = list(sequences)
        self._inner.settle(known)
        crowd = None if self._repays else self._crowd(known)
        is_due = crowd is not None and any(
            not (seq.n_gained or seq.spec.yields) and seq.spec.scope != crowd
            for seq in self._inner.of(known)
        )
        self._waits = crowd if is_due else None

    def of(self, sequences: list[Sequence]) -> list[Sequence]:
        may = self._inner.of(sequences)
        return may if self._waits is None else [s for s in may if s.spec.scope != self._waits]

    def most_tokens(self, batch_tokens: int) -> int:
        most = self._inner.most_tokens(batch_tokens)
        if self._waits is None:
            return most
        left_s = LONGEST_S - self._owed_s
        return min(most, max(MIN_CHUNK, self._costs.tokens_within(left_s, most)))

    def passed(self, plan: Plan, sequences: collections.abc.Iterable[Sequence]) -> None:
        known = list(sequences)
        self._inner.passed(plan, known)
        if self._waits is None and not self._owed_s:
            return
        if self._waits is not None:
            took_s = self._costs.seconds(plan.n_tokens, plan.n_rows)
            is_known = took_s is not None and plan.n_tokens
            self._owed_s += took_s if took_s is not None and is_known else LONGEST_S
            self._repays = self._owed_s >= NEARLY * LONGEST_S
            return
        crowd = self._crowd(known)
        self._owed_s = 0.0 if crowd is None else max(0.0, self._owed_s - self._own_s(plan, crowd))
        self._repays = self._repays and self._owed_s > 0

    def _own_s(self, plan: Plan, crowd: str) -> float:
        """The time that a step of the crowd's streams alone would have taken. A step of its prompts
        counts as a whole: no stream of it is there to wait."""
        scopes = [work.sequence.spec.scope for work in plan.work if isinstance(work, Decode)]
        n_tokens = n_rows = scopes.count(crowd)
        if not n_rows:
            if all(seq.spec.scope != crowd for seq in plan.sequences):
                return 0.0
            n_tokens, n_rows = plan.n_tokens, plan.n_rows
        return self._costs.seconds(n_tokens, n_rows) or 0.0

    def _crowd(self, sequences: list[Sequence]) -> str | None:
        """The scope with more than half of the slots."""
        if len(sequences) < self._least:
            return None
        scope, n = Counter([seq.spec.scope for seq in sequences]).most_common(1)[0]
        return scope if scope and n >= self._least else None
