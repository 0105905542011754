"""Turns of keys, one after another, while keys come and go. Pure."""

from collections.abc import Container, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Rota(Generic[K]):
    """The keys of all sequences, in the order in which they have a turn.

    Invariant: a key that has had its turn, and a new one, are behind all others. So between two
    turns of a key that may have one, no other key has two, however many come and go.
    """

    def __init__(self) -> None:
        self._n_sequences: dict[K, int] = {}

    def __len__(self) -> int:
        """The number of different keys."""
        return len(self._n_sequences)

    def arrived(self, key: K) -> None:
        """A sequence with this key has come."""
        self._n_sequences[key] = self._n_sequences.get(key, 0) + 1

    def ended(self, key: K) -> None:
        """A sequence with this key, which had arrived, is no more."""
        self._n_sequences[key] -= 1
        if not self._n_sequences[key]:
            del self._n_sequences[key]

    def next_of(self, keys: Container[K]) -> K | None:
        """The key whose turn it is among these; None where there is none. Changes nothing."""
        return next((key for key in self._n_sequences if key in keys), None)

    def had_turn(self, key: K) -> None:
        """The key is behind all others now."""
        if (n_sequences := self._n_sequences.pop(key, 0)) > 0:
            self._n_sequences[key] = n_sequences
