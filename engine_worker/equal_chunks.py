"""Chunks of prompts that are equally long, so that a device computes them in one pass. Pure.

For a GPU and a KV stream for each sequence. There llama.cpp computes of each sequence in a pass as
many tokens as the shortest chunk has, and what is left over in further passes; and of a small model
a pass takes as long with a hundred tokens as with a thousand. So the prompts of a step are of like
length, and equally many tokens of each are computed. Of the longer ones a *tail* is left, which
follows token by token in the passes that others' next tokens take anyway.
"""

from msgspec import structs

from engine_worker.plan import Work
from engine_worker.sequence import Sequence

TAIL = 8
"""The most tokens that are left so: a stream that begins so many steps later than its neighbours is
not noticed, and of many prompts most find some that are no more apart."""


def is_like(n_pending: int, count: int) -> bool:
    """Whether of so many tokens `count` can be computed and no more than a tail is left."""
    return count <= n_pending <= count + TAIL


def levelled(chunks: list[Work]) -> list[Work]:
    """The same chunks, all as short as the shortest."""
    count = min((chunk.count for chunk in chunks), default=0)
    return [
        structs.replace(chunk, count=count, output=chunk.output and count == chunk.count)
        for chunk in chunks
    ]


def is_tail(sequence: Sequence) -> bool:
    """Whether so little is left of a prompt that it can be fed token by token."""
    return 1 < sequence.n_pending <= TAIL and sequence.n_computed > 0 and not sequence.exact
