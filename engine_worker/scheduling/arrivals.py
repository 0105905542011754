"""Requests that arrive together begin together. Pure.

Eight prompts of equal length that arrive at once can be computed one after another. If the first
ones decoded meanwhile, each of their steps would delay the first token of the last ones. So a
sequence stops before the last token of its prompt until the others have got as far; from its first
token on its stream runs at full speed. A client has already seen tokens of a replay:
a replay goes on by one token as soon as it can, and waits for other replays then.
"""

import collections.abc

from msgspec import Struct, structs

from engine_worker.scheduling.pausing import Limits, n_pending
from engine_worker.scheduling.plan import Chunk, Decode, Plan
from engine_worker.text.sequence import Sequence

LIKE = 2
"""A prompt of so many times the own length is not waited for: only the long one would gain."""

MOST_AWAITED = 32
"""Batches of prompts that are left at most where a ready sequence waits for them."""


class _Times(Struct):
    """Numbers of steps that were committed before an event.

    `arrived`: the sequence came. `ready`: all its known tokens but at most one had cells; 0: not
    yet. It has `left` its burst with its first token beside no prompt of the burst.
    """

    arrived: int
    ready: int = 0
    left: bool = False


class BeginTogether:
    """The bursts that there are. Sequences are known from `arrived` to `ended`."""

    def __init__(self, batch_tokens: int, *, on_device: bool) -> None:
        """On a CPU the sequences of a burst gain tokens during it (`EarlyTokens`)."""
        self._most_awaited = MOST_AWAITED * batch_tokens
        self._on_device = on_device
        self._n_steps = 0
        self._times: dict[Sequence, _Times] = {}

    def arrived(self, sequence: Sequence) -> None:
        self._times[sequence] = _Times(self._n_steps)

    def going(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> list[Sequence] | None:
        """In a burst, none: every ready sequence has a mate among the prompts, and no stream that
        has left its burst is among them."""
        if not prompts or n_pending(prompts) > self._most_awaited:
            return None
        waits = all(self._may_wait(seq) and self._has_mates(seq, prompts) for seq in ready)
        return [] if waits else None

    def limits(
        self, ready: collections.abc.Sequence[Sequence], prompts: collections.abc.Sequence[Sequence]
    ) -> Limits:
        return Limits()

    def shortened(
        self,
        chunks: list[Chunk],
        ready: collections.abc.Sequence[Sequence],
        prompts: collections.abc.Sequence[Sequence],
    ) -> list[Chunk]:
        """A chunk leaves the last token of its prompt while mates have more left."""
        done = {chunk.sequence for chunk in chunks if chunk.is_last}
        others = [seq for seq in prompts if seq not in done]
        return [
            structs.replace(chunk, count=chunk.count - 1, is_last=False)
            if chunk.is_last
            and chunk.count > 1
            and _stops_before_its_first_token(chunk.sequence)
            and self._has_mates(chunk.sequence, others)
            else chunk
            for chunk in chunks
        ]

    def computed(self, plan: Plan) -> None:
        self._n_steps += 1
        prompts = [work.sequence for work in plan.work if isinstance(work, Chunk)]
        for work in plan.work:
            if isinstance(work, Decode) and not self._has_mates(work.sequence, prompts):
                self._times[work.sequence].left = True
        for sequence in plan.sequences:
            if sequence.n_pending <= 1 and not self._times[sequence].ready:
                self._times[sequence].ready = self._n_steps

    def ended(self, sequence: Sequence) -> None:
        del self._times[sequence]

    def _may_wait(self, sequence: Sequence) -> bool:
        if not self._on_device:
            return not self._times[sequence].left
        return sequence.n_gained <= (1 if sequence.spec.tokens else 0)

    def _has_mates(self, sequence: Sequence, prompts: collections.abc.Iterable[Sequence]) -> bool:
        """Whether one of `prompts` came together with this one, and is not much longer."""
        ready = self._times[sequence].ready
        # a CPU's step is long: requests that came during the one that made this one ready came
        # together with it
        latest = ready - 1 if self._on_device else ready
        most = LIKE * (sequence.n_prompt + len(sequence.spec.tokens))
        return any(
            (not ready or self._times[other].arrived <= latest)
            and len(other.tokens) <= most
            and (other.is_replay or not sequence.spec.tokens)
            and not other.is_fed_singly
            for other in prompts
        )


def _stops_before_its_first_token(sequence: Sequence) -> bool:
    """Not for a request of one token, nor after tokens were gained, by this worker or another; and
    not in exact replay: its last token needs the same kernels as the rest of its prompt."""
    return sequence.room > 1 and not sequence.has_begun and not sequence.exact
