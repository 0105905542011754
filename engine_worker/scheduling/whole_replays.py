"""Replays one after another, the shortest first, each in one chunk. Pure.

For a device with all layers and a KV stream for each sequence, and a model with prompt tokens that
take long. When a worker dies, dozens of replays arrive at once. In chunks of one length, dozens of
them advance together and go on late. Each computes some tokens twice as well
(`overlapped_replays`). A pass of a new shape is the price of a chunk of another length. It takes as
long as many tokens of a small model, and as few tokens of a large one. So a large model computes
whole replays, in steps that are short: streams that run wait for the step, and replays go on at its
end.
"""

import collections.abc
from typing import Self

from engine_worker.backend.profile import Profile
from engine_worker.kv.prefix_cache import PrefixCache
from engine_worker.kv.slots import Slots
from engine_worker.scheduling.plan import Chunk
from engine_worker.scheduling.step_shape import MakeSlots, Mixed
from engine_worker.text.sequence import Sequence

STEP_TOKENS = 512
"""A step with so many tokens of replays gets no further chunk. `scripts/lab/replay_order.py`
compares numbers."""

MOST_TOKENS = 2 * STEP_TOKENS
"""Tokens of a step with replays: the last replay of a step is whole as well."""

LEAST_PIECE = 64
"""Tokens of a piece of a replay that does not fit whole. Fewer are not worth a pass."""


class WholeReplays(Mixed):
    """A replay has one chunk, or pieces that fill up a step where it is longer than that."""

    _pays = False

    @classmethod
    def with_slots(
        cls, profile: Profile, cache: PrefixCache, usual: MakeSlots
    ) -> tuple[Slots, Self]:
        slots, shape = super().with_slots(profile, cache, usual)
        shape._pays = profile.prompt_token_s >= profile.tuning.whole_replays_token_s
        return slots, shape

    def fed_singly(
        self, running: collections.abc.Sequence[Sequence], ready: collections.abc.Sequence[Sequence]
    ) -> list[Sequence]:
        fed = super().fed_singly(running, ready)
        return [sequence for sequence in fed if not self._is_whole(sequence)]

    def next_chunk(
        self, sequence: Sequence, chunks: collections.abc.Sequence[Chunk], budget: int
    ) -> int:
        is_whole = self._is_whole(sequence)
        if not (is_whole or any(self._is_whole(chunk.sequence) for chunk in chunks)):
            return super().next_chunk(sequence, chunks, budget)
        n_planned = sum([chunk.count for chunk in chunks])
        if n_planned >= STEP_TOKENS:
            return 0
        room = min(budget, MOST_TOKENS - n_planned)
        if not is_whole:
            return super().next_chunk(sequence, chunks, room)
        if chunks and chunks[0].sequence.exact:
            return 0  # its passes must be those of the first time
        if sequence.n_pending <= room:
            return sequence.n_pending
        piece = min(budget, STEP_TOKENS - n_planned)
        return piece if piece >= LEAST_PIECE or not chunks else 0

    def _is_whole(self, sequence: Sequence) -> bool:
        if not self._pays or sequence.exact or sequence.scores_prompt:
            return False
        return sequence.is_replay
