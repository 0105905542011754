"""Whether prompt chunks are computed in passes of their own. Pure.

For a CPU with a KV stream for each slot. llama.cpp computes a batch in passes over consecutive
slots that have equally many tokens in it. All slots of a pass attend to as many cells as the
longest one. With passes of their own, long prompts do not slow down short streams. But a prompt in
a gap between decoding slots can leave more passes than before, and each pass reads all weights.
"""

from collections.abc import Collection
from itertools import pairwise

from engine_worker.backend.port import Batch

FAR = 1024
"""Cells by which a prompt must exceed the decoding streams to be worth more passes. Measured with
eight streams of a 135M model: attending to that many takes as long as reading the weights once."""


def computes_apart(batch: Batch) -> bool:
    """Whether to compute `batch.chunks` after all other slots, in passes of their own."""
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
