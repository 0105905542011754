"""Whether prompts are computed apart from the sequences that decode beside them. Pure.

For a CPU with a KV stream for each sequence. llama.cpp computes a batch in passes of sequences with
consecutive ids that have equally many tokens in it, and all of a pass attend to as many cells as
the one that has the most. Apart, short streams do not pay for a long prompt's cells. But prompts
in gaps between the others' ids would leave more passes than before, and each reads all weights.
"""

from collections.abc import Collection
from itertools import pairwise

from engine_worker.backend.port import Batch

FAR = 1024
"""Cells that a prompt must have beyond the others' to be worth more passes. Measured with eight
streams of a 135M model, whose weights take as long to read as they attend to so many."""


def computes_apart(batch: Batch) -> bool:
    """Whether `batch.chunks` had better be computed after all others."""
    if not batch.chunks:
        return False
    every = set(batch.sequences)
    decoding = every - batch.chunks
    if _n_runs(decoding) <= _n_runs(every):
        return True
    return _farthest(batch, batch.chunks) >= FAR + _farthest(batch, decoding)


def _n_runs(ids: Collection[int]) -> int:
    ordered = sorted(ids)
    return 1 + sum(after != before + 1 for before, after in pairwise(ordered))


def _farthest(batch: Batch, sequences: Collection[int]) -> int:
    pairs = zip(batch.sequences, batch.positions, strict=True)
    return max(position for sequence, position in pairs if sequence in sequences)
