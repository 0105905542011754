"""Masks of vocabularies, as grammars give them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from engine_worker.backend.candidates import MaskWords


def mask_of(allowed: NDArray[np.bool_]) -> MaskWords:
    """The words of a mask, given whether each token is allowed."""
    padded = np.zeros(-(-len(allowed) // 32) * 32, np.bool_)
    padded[: len(allowed)] = allowed
    return np.packbits(padded, bitorder="little").view(np.int32)


def allowing(n_vocab: int, tokens: Iterable[int]) -> MaskWords:
    """A mask that allows these tokens only."""
    allowed = np.zeros(n_vocab, np.bool_)
    allowed[list(tokens)] = True
    return mask_of(allowed)


def forbidding(n_vocab: int, tokens: Iterable[int]) -> MaskWords:
    """A mask that forbids these tokens only."""
    return ~allowing(n_vocab, tokens)
