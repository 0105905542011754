"""Logits in memory like that of a backend."""

import numpy as np
from numpy.typing import NDArray

from engine_worker.backend.llama.host_top_k import aligned_memory

Rows = NDArray[np.float32]


def aligned(logits: Rows) -> Rows:
    """A copy in memory that is aligned as a backend's logits are."""
    copied = aligned_memory(logits.nbytes).view(np.float32).reshape(logits.shape)
    copied[:] = logits
    return copied
