"""Chunks of prompts that are equally long, so that a device computes them in one pass. Pure.

For a GPU and a KV stream for each sequence. There llama.cpp computes of each sequence in a pass as
many tokens as the shortest chunk has, and what is left over in further passes; and of a small model
a pass takes as long with a hundred tokens as with a thousand. So prompts of like length are a group
of which equally many tokens are computed; others come beside in further passes, where whole ones
fit. Of the longer ones of a group a *tail* is left, which follows token by token in the passes that
others' next tokens take anyway.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Items

from msgspec import structs

from engine_worker.scheduling.plan import Work
from engine_worker.text.sequence import Sequence

TAIL = 8
"""The most tokens that are left so: a stream that begins so many steps later than its neighbours is
not noticed, and of many prompts most find some that are no more apart."""


def next_chunk(n_pending: int, counts: Iterable[int], budget: int) -> int:
    """How many of a prompt's tokens a step computes that has chunks of `counts` and room for
    `budget` tokens: as many as those that it is like, else all, else none."""
    for count in counts:
        if is_like(n_pending, count):
            return count if count <= budget else 0
    return n_pending if n_pending <= budget else 0


def is_like(n_pending: int, count: int) -> bool:
    """Whether of so many tokens `count` can be computed and no more than a tail is left."""
    return count <= n_pending <= count + TAIL


def levelled(chunks: Items[Work], counts: Items[int]) -> list[Work]:
    """The same chunks, all that were to have the same one of `counts` as short as the shortest."""
    shortest = dict.fromkeys(counts, max(counts, default=0))
    for chunk, count in zip(chunks, counts, strict=True):
        shortest[count] = min(shortest[count], chunk.count)
    return [
        structs.replace(chunk, count=least, output=chunk.output and least == chunk.count)
        for chunk, least in zip(chunks, map(shortest.__getitem__, counts), strict=True)
    ]


def is_tail(sequence: Sequence) -> bool:
    """Whether so little is left of a prompt that it can be fed token by token: its last token too,
    if it waited for others with it."""
    return 1 < sequence.n_pending <= TAIL + 1 and sequence.n_computed > 0 and not sequence.exact
