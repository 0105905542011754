"""Logits in memory like that of a backend."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

ALIGNMENT = 32
"""Bytes. ggml aborts the process for memory that is not aligned so."""


def aligned(logits: Rows) -> Rows:
    """A copy in memory that is aligned as a backend's logits are."""
    memory = np.empty(logits.nbytes + ALIGNMENT, np.uint8)
    copied = memory[-memory.ctypes.data % ALIGNMENT :][: logits.nbytes]
    copied = copied.view(np.float32).reshape(logits.shape)
    copied[:] = logits
    return copied
