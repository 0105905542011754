"""From a model's vector to the result that a client gets. Pure."""

import math

import numpy as np

from engine_worker.backend.embedder import Vector


def embedding(vector: Vector, dimensions: int | None = None) -> bytes:
    """The first `dimensions` numbers, all by default, scaled to length 1 (L2)."""
    kept = vector[:dimensions].astype(np.float64)
    length = float(np.linalg.norm(kept))
    return (kept / (length or 1.0)).astype("<f4").tobytes()


def score(vector: Vector) -> bytes:
    """The relevance in a reranker's vector, from 0 to 1.

    A head with one output gives a logit. One with several gives probabilities, the first of them
    that of relevance: llama.cpp's graph applies the softmax.
    """
    first = float(vector[0])
    relevance = first if len(vector) > 1 else _sigmoid(first)
    return np.array([relevance], "<f4").tobytes()


def _sigmoid(logit: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * logit))
