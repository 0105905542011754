"""The memory of llama.cpp's batches."""

import ctypes
from typing import Any

import numpy as np

from engine_worker.backend.llama.bindings import EmbeddingBindings
from engine_worker.backend.port import Batch


class BatchArrays:
    """The memory of one `llama_batch`, made once and filled by slices, with no object per token."""

    def __init__(self, bindings: EmbeddingBindings, capacity: int) -> None:
        self.capacity = capacity
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        # the list of sequences of each token has one entry, which lies in `_sequences`
        first = self._sequences.ctypes.data
        self._pointers = np.arange(capacity, dtype=np.int64) * 4 + first
        self._batch = bindings.llama_batch()
        int32_p = ctypes.POINTER(ctypes.c_int32)
        self._batch.token = ctypes.cast(self._tokens.ctypes.data, int32_p)
        self._batch.pos = ctypes.cast(self._positions.ctypes.data, int32_p)
        self._batch.n_seq_id = ctypes.cast(self._ones.ctypes.data, int32_p)
        self._batch.seq_id = ctypes.cast(self._pointers.ctypes.data, ctypes.POINTER(int32_p))
        self._batch.logits = ctypes.cast(self._outputs.ctypes.data, ctypes.POINTER(ctypes.c_int8))

    def fill(self, batch: Batch) -> Any:
        """`batch` as a `llama_batch`, valid until the next call."""
        n_tokens = len(batch.tokens)
        self._tokens[:n_tokens] = batch.tokens
        self._positions[:n_tokens] = batch.positions
        self._sequences[:n_tokens] = batch.sequences
        self._outputs[:n_tokens] = batch.outputs
        self._batch.n_tokens = n_tokens
        return self._batch
