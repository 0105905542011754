"""Chunks of prompts that are equally long, so that a device computes them in one pass. Pure.

For a device with a KV stream for each sequence. In a pass, llama.cpp computes as many tokens of
each sequence as the shortest chunk has; the rest takes further passes. With a small model a pass of
a thousand tokens takes hardly longer than a pass of a hundred. So prompts of similar length form a
group, and equally many tokens of each are computed. Other prompts are computed in passes of their
own where they fit whole. A longer prompt of a group has a *tail* left, which is fed token by token
in the passes that other sequences' next tokens take.
"""

import collections.abc

from msgspec import structs

from engine_worker.scheduling.plan import Chunk, Work
from engine_worker.scheduling.step_shape import Mixed, by_slot
from engine_worker.text.sequence import Sequence

TAIL = 8
"""The longest tail, in tokens. A stream that begins so many steps after its group is not noticed,
and most prompts of a burst find others that differ by no more."""


class EqualChunks(Mixed):
    """Prompts of similar length get chunks of equal length; tails are fed token by token."""

    def fed_singly(
        self, running: collections.abc.Sequence[Sequence], ready: collections.abc.Sequence[Sequence]
    ) -> list[Sequence]:
        """Exact replays, and tails where some sequence is ready."""
        if len(ready) == len(running):
            return []
        return [seq for seq in running if seq.is_fed_singly or (ready and is_tail(seq))]

    def next_chunk(
        self, sequence: Sequence, chunks: collections.abc.Sequence[Chunk], budget: int
    ) -> int:
        """An exact replay needs the same passes again, so it shares a step with no other prompt."""
        if not chunks:
            return super().next_chunk(sequence, chunks, budget)
        if budget <= 0 or sequence.exact or chunks[0].sequence.exact:
            return 0
        counts = dict.fromkeys(chunk.count for chunk in chunks)
        return equal_count(sequence.n_to_checkpoint, counts, budget)

    def levelled(
        self, chunks: collections.abc.Sequence[Chunk], chosen: collections.abc.Sequence[Chunk]
    ) -> list[Chunk]:
        """Every chunk of a group, chosen with one count, becomes as short as its shortest."""
        counts = [chunk.count for chunk in chosen]
        shortest = dict.fromkeys(counts, max(counts, default=0))
        for chunk, count in zip(chunks, counts, strict=True):
            shortest[count] = min(shortest[count], chunk.count)
        return [
            structs.replace(chunk, count=least, is_last=chunk.is_last and least == chunk.count)
            for chunk, least in zip(chunks, map(shortest.__getitem__, counts), strict=True)
        ]

    def ordered(self, decoding: list[Work], chunks: list[Chunk]) -> list[Work]:
        return by_slot(decoding, chunks)


def equal_count(n_pending: int, counts: collections.abc.Iterable[int], budget: int) -> int:
    """The tokens to compute of one more prompt beside chunks of `counts`: those of the first group
    that it is similar to, else all of them; 0 where that is beyond the budget."""
    for count in counts:
        if is_similar(n_pending, count):
            return count if count <= budget else 0
    return n_pending if n_pending <= budget else 0


def is_similar(n_pending: int, count: int) -> bool:
    """Whether a chunk of `count` leaves no more than a tail of so many tokens."""
    return count <= n_pending <= count + TAIL


def is_tail(sequence: Sequence) -> bool:
    """Whether the rest of a prompt can be fed token by token. The last token, if the sequence
    waited for others before it, comes on top of the tail."""
    return 1 < sequence.n_pending <= TAIL + 1 and sequence.n_computed > 0 and not sequence.exact
