"""The part of a backend's port that computes embeddings and scores."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]


class PassLimits(Struct, frozen=True):
    """The limits of one pass: its inputs and its tokens.

    With `may_split`, an input may come in several passes. Else an input is computed whole, and it
    has at most `n_tokens`.
    """

    n_inputs: int
    n_tokens: int
    may_split: bool


class Span(Struct, frozen=True):
    """Consecutive tokens of one input, the first of them at `start`.

    The spans of an input have one slot, 0 ≤ slot < `PassLimits.n_inputs`, and follow each other.
    Another input may have the slot after the span with `is_last`.
    """

    slot: int
    start: int
    tokens: Sequence[int]
    is_last: bool


class Embedder(Protocol):
    """Computes inputs that share nothing with a backend's slots. For the engine thread only."""

    limits: PassLimits

    def compute(self, spans: Sequence[Span]) -> list[Vector]:
        """One pass. A vector for each span that ends an input, in their order, as the model makes
        it: of any length. Raises `DecodeFailed`."""
        ...

    def drop(self, slot: int) -> None:
        """Forget the beginning of an input."""
        ...

    def close(self) -> None:
        """Free the memory that is the embedder's own."""
        ...
