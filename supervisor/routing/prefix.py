"""Hashes of a prompt's prefixes, block by block."""

from collections.abc import Hashable

from gpufc.protocol import Tokens

BLOCK_TOKENS = 64
"""The tokens of a block. A shorter prompt has no prefix that is worth a choice."""

MAX_BLOCKS = 256
"""Blocks after these are not told apart: two prompts that agree so far share nearly all work."""


def prefix_of(tokens: Tokens, shared_by: Hashable) -> tuple[int, ...]:
    """A hash for each whole block, of all tokens up to its end.

    `shared_by` is what a cached prefix is shared by besides its tokens: the scope, the adapters.
    The hashes are comparable within this process only.
    """
    found = []
    so_far = hash(shared_by)
    last = min(len(tokens), MAX_BLOCKS * BLOCK_TOKENS)
    for start in range(0, last - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        so_far = hash((so_far, tokens[start : start + BLOCK_TOKENS]))
        found.append(so_far)
    return tuple(found)
