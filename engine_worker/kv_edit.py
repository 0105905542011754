"""What is done to the KV cache before a step computes anything: two verbs on slots."""

from msgspec import Struct


class Remove(Struct, frozen=True):
    """Forget the cells of a slot from position `start` on."""

    slot: int
    start: int


class Copy(Struct, frozen=True):
    """Let the empty slot `target` begin with `n_tokens` of `source`."""

    source: int
    target: int
    n_tokens: int


KvEdit = Remove | Copy
