"""The edits of the KV cache that precede a step, and the types that name its contents."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from msgspec import Struct


class CellPosition(NamedTuple):
    """The place of one token's cell."""

    slot: int
    position: int


class Holding(Struct, frozen=True):
    """A slot with cells for exactly `tokens`, which sequences of the same `scope` may copy."""

    slot: int
    scope: str
    tokens: tuple[int, ...]


class Remove(Struct, frozen=True):
    """Remove the cells of `slot` from position `start` on."""

    slot: int
    start: int


class Copy(Struct, frozen=True):
    """Copy the first `n_tokens` cells of slot `source` into the empty slot `target`."""

    source: int
    target: int
    n_tokens: int


KvEdit = Remove | Copy


class Editable(Protocol):
    """The part of a `Backend` that edits need."""

    def remove(self, slot: int, start: int = 0) -> None: ...
    def copy_prefix(self, source: int, target: int, n_tokens: int) -> None: ...


def apply(edits: Iterable[KvEdit], backend: Editable) -> None:
    """Apply edits in order."""
    for edit in edits:
        match edit:
            case Remove(slot, start):
                backend.remove(slot, start)
            case Copy(source, target, n_tokens):
                backend.copy_prefix(source, target, n_tokens)
