"""Of requests that arrive together, half have their first token early. Pure.

For a CPU, where a burst of prompts takes long. If all its sequences wait until the last prompt is
computed (`BeginTogether`), the first one's token comes as late as the last one's.

- Where the rest of the burst takes no longer than `PAUSE_S`, the first half of the sequences have
  their first token as soon as their prompts are computed, and wait before the second. So the median
  first token comes in half the time, and second tokens come as late as they did. The other half
  begins when the last prompt is computed, and waits for nothing: fewer than one gap in a hundred is
  such a pause, in answers of 60 tokens and more.
- Where a prompt is longer than `LONG` and the rest than `TRICKLE_S`, a sequence gains a token in
  each step from its first one on. Steps take `TRICKLE_S`, so that its stream trickles while long
  prompts are computed.
- A longer rest of short prompts is waited for, unless a sequence of the burst has a token already:
  the first one, which was computed while the others arrived. Then all trickle.
- A stream that trickles is not stopped for longer than `TRICKLE_S`.

A client has a sequence's first token with the first step that chooses one. Tokens that a guide
forces before it come with it, and those after it with the same step.

A replay has its next token as soon as it can: its client sees it stand still.
"""

import collections.abc

from engine_worker.scheduling.pausing import Limits, Pausing, n_left, n_pending
from engine_worker.scheduling.plan import Chunk, Plan, chooses
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.text.sequence import Sequence

PAUSE_S = 3.0
"""The longest wait before a second token, as far as costs are known. The first one comes that much
earlier for it."""

TRICKLE_S = 0.25

LONG = 512
"""Pending tokens of a prompt that no sequence waits for. Short ones are worth it: a client that
waits a little longer has an even stream."""

LEAST_STEP = 128
"""A rest of so many tokens is computed in one step. With fewer in a step each takes longer."""

LEAST_TRICKLE = 64
"""Tokens of a step of a longer rest, where few threads take `TRICKLE_S` for less. With fewer each
token takes longer."""


class EarlyTokens:
    """`inner` decides first. A rest of a burst whose time is not known yet counts as long."""

    def __init__(self, inner: Pausing, batch_tokens: int, costs: StepCosts) -> None:
        self._inner = inner
        self._batch_tokens = batch_tokens
        self._costs = costs
        self._n_told: dict[Sequence, int] = {}  # steps in which each sequence gained tokens

    def arrived(self, sequence: Sequence) -> None:
        self._n_told[sequence] = 0
        self._inner.arrived(sequence)

    def going(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> list[Sequence] | None:
        """Where little is left, ready sequences without a token that belong to the first half: they
        gain one, and wait then."""
        going = self._inner.going(ready, prompts)
        if going is None:
            return None
        if self._is_short(ready, prompts):
            replays = [seq for seq in ready if seq.is_replay]
            return [*replays, *_held(ready)[: _n_early(ready, prompts)]]
        if _has_long(prompts) or any(seq.n_gained for seq in ready):
            return list(ready)
        return going

    def limits(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> Limits:
        """Of a short rest a step ends with the prompts of the first half."""
        is_alone = len(prompts) < 2 and not ready
        if is_alone or any(seq.is_replay for seq in prompts):
            return self._inner.limits(ready, prompts)
        if self._is_short(ready, prompts):
            is_one_step = n_pending(prompts) <= LEAST_STEP
            return Limits(prompts=None if is_one_step else _n_ending(ready, prompts) or None)
        most = self._costs.tokens_within(TRICKLE_S, self._batch_tokens)
        return Limits(tokens=max(LEAST_TRICKLE, most))

    def shortened(
        self,
        chunks: list[Chunk],
        ready: collections.abc.Sequence[Sequence],
        prompts: collections.abc.Sequence[Sequence],
    ) -> list[Chunk]:
        is_short = self._is_short(ready, prompts)
        if not is_short and _has_long(prompts):
            return chunks
        shortened = self._inner.shortened(chunks, ready, prompts)
        if not is_short:
            return shortened
        ends = [number for number, chunk in enumerate(chunks) if chunk.is_last]
        early = ends[: _n_ending(ready, prompts)]
        return [
            chunk if number in early or chunk.sequence.is_replay else shorter
            for number, (chunk, shorter) in enumerate(zip(chunks, shortened, strict=True))
        ]

    def computed(self, plan: Plan) -> None:
        for work in plan.work:
            if chooses(work):
                self._n_told[work.sequence] += 1
        self._inner.computed(plan)

    def ended(self, sequence: Sequence) -> None:
        del self._n_told[sequence]
        self._inner.ended(sequence)

    def _is_short(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> bool:
        n_tokens = n_pending(prompts)
        step_s = self._costs.seconds(min(n_tokens, self._batch_tokens), 1)
        n_steps = max(1.0, n_tokens / self._batch_tokens)
        trickles = _has_long(prompts) or any(self._n_told[seq] > 1 for seq in ready)
        most_s = TRICKLE_S if trickles else PAUSE_S
        return step_s is not None and step_s * n_steps <= most_s


def _n_early(
    ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
) -> int:
    """How many more sequences of a burst have their first token before its last prompt is
    computed."""
    n_begun = sum([seq.n_gained > 0 for seq in ready])
    return max(0, (len(ready) + len(prompts)) // 2 - n_begun)


def _n_ending(
    ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
) -> int:
    """How many of these have a prompt that ends in the next step: held sequences go first."""
    return max(0, _n_early(ready, prompts) - len(_held(ready)))


def _held(ready: collections.abc.Iterable[Sequence]) -> list[Sequence]:
    """Sequences that wait before their first token."""
    return [seq for seq in ready if not (seq.n_gained or seq.is_replay)]


def _has_long(prompts: collections.abc.Iterable[Sequence]) -> bool:
    return any(n_left(prompt) > LONG for prompt in prompts)
