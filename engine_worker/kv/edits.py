"""What is done to the KV cache before a step computes anything: two verbs on slots; and the words
for what lies in it."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from msgspec import Struct


class CellPosition(NamedTuple):
    """Where a token's cell is."""

    slot: int
    position: int


class Holding(Struct, frozen=True):
    """A KV sequence with cells for exactly `tokens`, which those of `scope` may share."""

    slot: int
    scope: str
    tokens: tuple[int, ...]


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


class Editable(Protocol):
    """The part of a `Backend` that edits are done on."""

    def remove(self, slot: int, start: int = 0) -> None: ...
    def copy_prefix(self, source: int, target: int, n_tokens: int) -> None: ...


def apply(edits: Iterable[KvEdit], backend: Editable) -> None:
    """Do them, in their order."""
    for edit in edits:
        match edit:
            case Remove(slot, start):
                backend.remove(slot, start)
            case Copy(source, target, n_tokens):
                backend.copy_prefix(source, target, n_tokens)
