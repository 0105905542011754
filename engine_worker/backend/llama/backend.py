"""The engine on llama.cpp. The only module that imports llama_cpp; only its low-level bindings.

`load` turns every way in which a file or a configuration can be unfit into a `ModelLoadError` of
one line. llama.cpp aborts the process on some misuse, so batches are checked here before.
"""

import ctypes
from itertools import compress
from typing import Any, Self

import llama_cpp
import llama_cpp.llama_cpp as lc
import numpy as np
from numpy.typing import NDArray

from engine_worker.backend.llama.host_top_k import GgmlTopK
from engine_worker.backend.llama.loading import Loaded, Loader
from engine_worker.backend.llama.log import LlamaLog
from engine_worker.backend.llama.passes import computes_apart
from engine_worker.backend.port import Batch, First, LoadProgress, Logits
from gpufc.config import ModelConfig
from gpufc.errors import DecodeFailed, OutOfCells

_log = LlamaLog()
# llama.cpp keeps only the pointer: this reference must live as long as the process
_log_callback = lc.llama_log_callback(lambda level, text, _: _log.write(level, text))
lc.llama_log_set(_log_callback, None)


class LlamaBackend:
    """Implements `backend.Backend`: one model and one context.

    Owned by the engine thread; the vocabulary's methods may be called from any thread until
    `close`.
    """

    def __init__(self, loaded: Loaded) -> None:
        """Takes ownership of the model and its context. Use `load`."""
        self.facts, vocabulary = loaded.facts, loaded.vocabulary
        self._model, self._context = loaded.model, loaded.context
        self._memory = lc.llama_get_memory(loaded.context)
        self._vocabulary = vocabulary
        self._batch = _BatchArrays(lc.llama_n_batch(loaded.context))
        self._device_top_k = loaded.device_top_k
        self._n_outputs = 0
        self._is_all_output = False
        """Whether every token of the batch was."""
        self._logits: Logits | None = None
        """What was put together from two passes."""
        facts = self.facts
        self._may_compute_apart = facts.can_cut and not (facts.unified or facts.asynchronous)
        self.tokenize = vocabulary.tokenize
        self.piece = vocabulary.piece
        self.spelling = vocabulary.spelling
        self.is_end = vocabulary.is_end
        self.end_tokens = vocabulary.end_tokens

    @classmethod
    def load(cls, config: ModelConfig, n_sequences: int, on_progress: LoadProgress) -> Self:
        """Load `config.model_path` for `n_sequences`, cached ones included (at most 256).

        Raises `ModelLoadError`. Blocks for seconds to minutes; the GIL is released meanwhile.
        """
        version = f"{llama_cpp.__version__}/{lc.llama_version().decode()}"
        return cls(Loader(lc, version, _log, config, n_sequences, on_progress).load())

    def begin(self, batch: Batch) -> None:
        self._check(batch)
        self._logits = None
        if batch.in_one_pass:
            self._compute_ahead(batch)
        elif self._may_compute_apart and computes_apart(batch):
            self._compute_apart(batch)
        else:
            self._decode(batch)

    def _compute_ahead(self, batch: Batch) -> None:
        """First all of the prompts but the last token, then one token of each sequence.

        llama.cpp keeps memory for a graph without outputs and for one with some. So that of the
        last pass is made in the same place as in the steps before, of the same shape, and the
        device can be told once more what it was told then.
        """
        sequences = np.array(batch.sequences)
        is_last = np.append(sequences[1:] != sequences[:-1], True)
        ahead = _part(batch, ~is_last)
        self._decode(ahead)
        try:
            self._decode(_part(batch, is_last))
        except OutOfCells:
            self._forget(ahead)
            raise

    def _forget(self, batch: Batch) -> None:
        """What has been computed of sequences, from their first token in the batch on."""
        starts: dict[int, int] = {}
        for sequence, position in zip(batch.sequences, batch.positions, strict=True):
            starts.setdefault(sequence, position)
        for sequence, position in starts.items():
            self.remove(sequence, position)

    def _compute_apart(self, batch: Batch) -> None:
        """First who decodes, then the prompts; see `passes`."""
        is_chunk = np.isin(batch.sequences, list(batch.chunks))
        is_output = np.array(batch.outputs)
        logits = np.empty((is_output.sum(), self.facts.n_vocab), np.float32)
        decoding, prompts = _part(batch, ~is_chunk), _part(batch, is_chunk)
        self._decode(decoding)
        logits[~is_chunk[is_output]] = self.logits()
        try:
            self._decode(prompts)
        except OutOfCells:
            self._forget(decoding)
            raise
        logits[is_chunk[is_output]] = self.logits()
        self._logits = logits

    def _decode(self, batch: Batch) -> None:
        self._n_outputs = sum(batch.outputs)
        self._is_all_output = self._n_outputs == len(batch.outputs)
        code = lc.llama_decode(self._context, self._batch.fill(batch))
        if code == 1:
            raise OutOfCells(f"no KV space for a batch of {len(batch.tokens)} tokens")
        if code != 0:
            raise DecodeFailed(f"llama_decode returned {code}: {_log.last_error() or 'no reason'}")

    def logits(self) -> Logits:
        if self._logits is not None:
            return self._logits
        # also waits for the computation, and puts the rows into the batch's order
        pointer = lc.llama_get_logits(self._context)
        if self._n_outputs == 0:
            return np.empty((0, self.facts.n_vocab), np.float32)
        logits: Logits = np.ctypeslib.as_array(pointer, (self._n_outputs, self.facts.n_vocab))
        return logits

    def first(self) -> First | None:
        """See `Backend`."""
        is_one = self._is_all_output and self._logits is None
        if self._device_top_k is None or not is_one:
            return None
        return self._device_top_k.first(self._n_outputs)

    def remove(self, sequence: int, start: int = 0) -> None:
        if not lc.llama_memory_seq_rm(self._memory, sequence, start, -1):
            raise DecodeFailed(f"sequence {sequence} cannot be cut at {start}: can_cut is false")

    def copy_prefix(self, source: int, target: int, n_tokens: int) -> None:
        if self.facts.unified and self.facts.can_cut:
            lc.llama_memory_seq_cp(self._memory, source, target, 0, n_tokens)
            return
        # between streams only whole sequences can be copied: a range aborts the process
        lc.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        if lc.llama_memory_seq_pos_max(self._memory, target) >= n_tokens:
            self.remove(target, n_tokens)

    def state_bytes(self, sequence: int) -> int:
        """See `Backend`. Of a model whose state cannot be cut, nothing is exported."""
        return (
            int(lc.llama_state_seq_get_size(self._context, sequence)) if self.facts.can_cut else 0
        )

    def export_state(self, sequence: int, memory: memoryview) -> int:
        """See `Backend`."""
        target = (ctypes.c_uint8 * len(memory)).from_buffer(memory)
        size = lc.llama_state_seq_get_data(self._context, target, len(memory), sequence)
        del target  # it holds the memory, which the caller is about to unmap
        return int(size)

    def import_state(self, sequence: int, memory: memoryview) -> bool:
        """See `Backend`. llama.cpp checks that cache types and layout agree."""
        source = (ctypes.c_uint8 * len(memory)).from_buffer(memory)
        size = lc.llama_state_seq_set_data(self._context, source, len(memory), sequence)
        del source
        if not size:
            lc.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return bool(size)

    def top_k(self, n_threads: int) -> GgmlTopK | None:
        """See `Backend`."""
        return GgmlTopK.of(lc._lib, self.facts.n_vocab, n_threads)

    def close(self) -> None:
        """Free context and model. Nothing may be called afterwards; a second call does nothing."""
        context, self._context = self._context, None
        model, self._model = self._model, None
        device_top_k, self._device_top_k = self._device_top_k, None
        if context is not None:
            lc.llama_free(context)
        if device_top_k is not None:
            device_top_k.close()
        if model is not None:
            lc.llama_model_free(model)

    def _check(self, batch: Batch) -> None:
        """Refuses what would abort the process: see `n_outputs_max`."""
        n_tokens, n_outputs = len(batch.tokens), sum(batch.outputs)
        if not 0 < n_tokens <= self._batch.capacity or n_outputs > self.facts.max_outputs:
            raise DecodeFailed(
                f"a batch of {n_tokens} tokens with {n_outputs} outputs, of at most"
                f" {self._batch.capacity} and {self.facts.max_outputs}"
            )


def _part(batch: Batch, members: NDArray[np.bool_]) -> Batch:
    """Only the tokens that `members` marks."""
    return Batch(
        list(compress(batch.tokens, members)),
        list(compress(batch.positions, members)),
        list(compress(batch.sequences, members)),
        list(compress(batch.outputs, members)),
    )


class _BatchArrays:
    """The memory of one `llama_batch`, made once and filled by slices: no object per token."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        # each token's list of sequences has one entry, which lies in `_sequences`
        first = self._sequences.ctypes.data
        self._pointers = np.arange(capacity, dtype=np.int64) * 4 + first
        self._batch = lc.llama_batch()
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
