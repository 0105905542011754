"""Of requests that arrive together, each has its first token early where that costs little. Pure.

For a CPU, where a burst of prompts takes long. If all its sequences wait until the last prompt is
computed (`BeginTogether`), the first one's token comes as late as the last one's.

- Where the rest of the burst takes no longer than `EARLY_S`, a sequence has its first token as soon
  as its prompt is computed, and waits before the second. A reader hardly sees that pause. A step
  computes half of the rest: about half of the sequences begin with it, and the last ones wait for
  little.
- Where a prompt is longer than `LONG`, a sequence gains a token in each step from its first one on.
  Steps are as large as `EARLY_S` permits, so that its stream trickles while long prompts are
  computed.
- A longer rest of short prompts is waited for, unless a sequence of the burst has a token already:
  a replay, or the first one, which was computed while the others arrived. Then all trickle.
"""

import collections.abc

from engine_worker.scheduling.pausing import Pausing, n_pending
from engine_worker.scheduling.plan import Chunk, Plan
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.text.sequence import Sequence

EARLY_S = 0.25

LONG = 512
"""Pending tokens of a prompt that no sequence waits for. Short ones are worth it: a client that
waits a little longer has an even stream."""

LEAST_STEP = 128
"""Tokens of a step of a short rest. With fewer each token takes longer."""

LEAST_TRICKLE = 64
"""The same of a longer rest, where few threads take `EARLY_S` for less."""


class EarlyTokens:
    """`inner` decides first. A rest of a burst whose time is not known yet counts as long."""

    def __init__(self, inner: Pausing, batch_tokens: int, costs: StepCosts) -> None:
        self._inner = inner
        self._batch_tokens = batch_tokens
        self._costs = costs

    def arrived(self, sequence: Sequence) -> None:
        self._inner.arrived(sequence)

    def going(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> list[Sequence] | None:
        """Where little is left, those without a token: they gain one, and wait then."""
        going = self._inner.going(ready, prompts)
        if going is None:
            return None
        if self._is_short(prompts):
            return [seq for seq in ready if not seq.n_gained]
        if _has_long(prompts) or any(seq.n_gained for seq in ready):
            return list(ready)
        return going

    def most_tokens(self, prompts: collections.abc.Sequence[Sequence], batch_tokens: int) -> int:
        if len(prompts) < 2:
            return self._inner.most_tokens(prompts, batch_tokens)
        if self._is_short(prompts):
            return max(LEAST_STEP, n_pending(prompts) // 2)
        return max(LEAST_TRICKLE, self._costs.tokens_within(EARLY_S, batch_tokens))

    def shortened(
        self, chunks: list[Chunk], prompts: collections.abc.Sequence[Sequence]
    ) -> list[Chunk]:
        if self._is_short(prompts) or _has_long(prompts):
            return chunks
        return self._inner.shortened(chunks, prompts)

    def computed(self, plan: Plan) -> None:
        self._inner.computed(plan)

    def ended(self, sequence: Sequence) -> None:
        self._inner.ended(sequence)

    def _is_short(self, prompts: collections.abc.Sequence[Sequence]) -> bool:
        n_tokens = n_pending(prompts)
        step_s = self._costs.seconds(min(n_tokens, self._batch_tokens), 1)
        n_steps = max(1.0, n_tokens / self._batch_tokens)
        return step_s is not None and step_s * n_steps <= EARLY_S


def _has_long(prompts: collections.abc.Iterable[Sequence]) -> bool:
    return any(prompt.n_pending > LONG for prompt in prompts)
