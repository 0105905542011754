"""Replays of any lengths in passes that they share. Pure.

For a device with all layers and a KV stream for each sequence. When a worker dies, dozens of
replays arrive at once, hardly two of one length, and every new shape of a pass costs as much time
as hundreds of tokens. So each replay is computed in chunks of one length. The last chunk reaches
back over tokens that have cells already and computes them again, so that it is as long as the
others.
"""

import collections.abc

from engine_worker.scheduling.plan import Chunk
from engine_worker.scheduling.step_shape import Mixed
from engine_worker.text.sequence import Sequence

CHUNK = 96
"""Tokens of each chunk. `scripts/lab/replay_burst.py` compares lengths."""

STEP_TOKENS = 2048
"""Tokens of replays in one step: the shortest go on before all are computed."""


class OverlappedReplays(Mixed):
    """Replays have chunks of `CHUNK` tokens; shorter ones form groups as prompts do."""

    def fed_singly(
        self, running: collections.abc.Sequence[Sequence], ready: collections.abc.Sequence[Sequence]
    ) -> list[Sequence]:
        fed = super().fed_singly(running, ready)
        return [sequence for sequence in fed if not _is_overlapped(sequence)]

    def next_chunk(
        self, sequence: Sequence, chunks: collections.abc.Sequence[Chunk], budget: int
    ) -> int:
        if not _is_overlapped(sequence) or sequence.n_pending == 1:  # all but one were known
            return super().next_chunk(sequence, chunks, budget)
        if not chunks and budget < CHUNK:  # in no step would there be more room
            return super().next_chunk(sequence, chunks, budget)
        if chunks and chunks[0].sequence.exact:
            return 0  # its passes must be those of the first time
        room = min(budget, STEP_TOKENS - sum([chunk.count for chunk in chunks]))
        return CHUNK if room >= CHUNK else 0


def _is_overlapped(sequence: Sequence) -> bool:
    if sequence.exact or sequence.scores_prompt:
        return False
    return sequence.is_replay and len(sequence.tokens) >= CHUNK
