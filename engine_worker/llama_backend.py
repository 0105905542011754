"""The engine on llama.cpp. The only module that imports llama_cpp; only its low-level bindings.

`load` turns every way in which a file or a configuration can be unfit into a `ModelLoadError` of
one line. llama.cpp aborts the process on some misuse, so batches are checked here before.
"""

import ctypes
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import llama_cpp
import llama_cpp.llama_cpp as lc
import numpy as np

from engine_worker import cells
from engine_worker.backend import SPARE_OUTPUTS, Batch, LoadProgress, Logits, ModelFacts
from engine_worker.fingerprint import fingerprint
from engine_worker.ggml_devices import free_gpu_bytes, list_devices
from engine_worker.gguf_header import GgufHeader, read_header
from engine_worker.llama_log import LlamaLog
from engine_worker.llama_vocabulary import Vocabulary
from engine_worker.sampling import require_finite
from gpufc.config import FlashAttention, ModelConfig
from gpufc.errors import DecodeFailed, ModelLoadError, OutOfCells

logger = logging.getLogger(__name__)

MAX_SEQUENCES = 256
"""LLAMA_MAX_SEQ."""

SPARE_OUTPUT_BYTES = 32 << 20
"""Most memory for `SPARE_OUTPUTS`: they are fewer with a vocabulary of more than 128 Ki."""

BATCH_TOKENS_CPU = 128
BATCH_TOKENS_GPU = 1024
"""Tokens of one step. The CPU's figure is measured (DESIGN.md), the GPU's llama.cpp's own range."""

_FLASH = {
    FlashAttention.AUTO: lc.LLAMA_FLASH_ATTN_TYPE_AUTO,
    FlashAttention.ON: lc.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    FlashAttention.OFF: lc.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}

_ENCODERS = frozenset(
    {
        *("bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"),
        *("modern-bert", "eurobert", "gemma-embedding", "t5", "t5encoder", "clip"),
        "wavtokenizer-dec",
    }
)

_log = LlamaLog()
# llama.cpp keeps only the pointer: this reference must live as long as the process
_log_callback = lc.llama_log_callback(lambda level, text, _: _log.write(level, text))
lc.llama_log_set(_log_callback, None)


class LlamaBackend:
    """Implements `backend.Backend`: one model and one context.

    Owned by the engine thread; the vocabulary's methods may be called from any thread until
    `close`.
    """

    def __init__(self, model: Any, context: Any, facts: ModelFacts, vocabulary: Vocabulary) -> None:
        """Takes ownership of `model` and `context`. Use `load`."""
        self.facts = facts
        self._model, self._context = model, context
        self._memory = lc.llama_get_memory(context)
        self._vocabulary = vocabulary
        self._batch = _BatchArrays(lc.llama_n_batch(context))
        self._n_outputs = 0
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
        if config.model_path is None or not 1 <= n_sequences <= MAX_SEQUENCES:
            raise ModelLoadError(
                f"no model path, or {n_sequences} sequences (1 to {MAX_SEQUENCES})"
            )
        header = read_header(Path(config.model_path))
        _require_text_model(header, config.model_path)
        lc.llama_backend_init()
        model = _load_model(config, on_progress)
        try:
            n_ctx = _n_ctx(config, lc.llama_model_n_ctx_train(model))
            # the vocabulary is looked through while the context's memory is cleared
            with ThreadPoolExecutor(1) as pool:
                reading = pool.submit(Vocabulary, lc, lc.llama_model_get_vocab(model))
                context = _new_context(model, header, config, n_ctx, n_sequences)
            vocabulary = reading.result()
        except BaseException:
            lc.llama_model_free(model)
            raise
        facts = _facts(model, context, header, config, n_ctx, vocabulary)
        on_progress(1.0)
        return cls(model, context, facts, vocabulary)

    def begin(self, batch: Batch) -> None:
        self._n_outputs = self._check(batch)
        code = lc.llama_decode(self._context, self._batch.fill(batch))
        if code == 1:
            raise OutOfCells(f"no KV space for a batch of {len(batch.tokens)} tokens")
        if code != 0:
            raise DecodeFailed(f"llama_decode returned {code}: {_log.last_error() or 'no reason'}")

    def logits(self) -> Logits:
        # also waits for the computation, and puts the rows into the batch's order
        pointer = lc.llama_get_logits(self._context)
        if self._n_outputs == 0:
            return np.empty((0, self.facts.n_vocab), np.float32)
        logits: Logits = np.ctypeslib.as_array(pointer, (self._n_outputs, self.facts.n_vocab))
        require_finite(logits)
        return logits

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

    def close(self) -> None:
        """Free context and model. Nothing may be called afterwards; a second call does nothing."""
        context, self._context = self._context, None
        model, self._model = self._model, None
        if context is not None:
            lc.llama_free(context)
        if model is not None:
            lc.llama_model_free(model)

    def _check(self, batch: Batch) -> int:
        """The number of outputs. Refuses what would abort the process: see `n_outputs_max`."""
        n_tokens, n_outputs = len(batch.tokens), sum(batch.outputs)
        if not 0 < n_tokens <= self._batch.capacity or n_outputs > self.facts.max_outputs:
            raise DecodeFailed(
                f"a batch of {n_tokens} tokens with {n_outputs} outputs, of at most"
                f" {self._batch.capacity} and {self.facts.max_outputs}"
            )
        return n_outputs


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


def _require_text_model(header: GgufHeader, path: str) -> None:
    arch = header.architecture
    kind = header.text("general.type")
    if kind in ("adapter", "mmproj", "imatrix") or arch in _ENCODERS:
        raise ModelLoadError(f"{path} is not a text generation model ({kind or arch})")
    if header.metadata.get(f"{arch}.attention.causal") is False:
        raise ModelLoadError(f"{path} is not a text generation model ({arch} for embeddings)")
    if not arch or not header.n_tensors:
        raise ModelLoadError(
            f"{path} holds no model: {'no weights' if arch else 'no architecture'}"
        )


def _load_model(config: ModelConfig, on_progress: LoadProgress) -> Any:
    params = lc.llama_model_default_params()
    params.n_gpu_layers = config.n_gpu_layers
    params.load_mode = lc.LLAMA_LOAD_MODE_MMAP if config.use_mmap else lc.LLAMA_LOAD_MODE_NONE
    # this reference keeps the callback alive for as long as llama.cpp calls it
    callback = lc.llama_progress_callback(lambda fraction, _: _report(on_progress, fraction))
    params.progress_callback = callback
    _log.clear()
    _log.n_offloaded = None
    model = lc.llama_model_load_from_file(os.fsencode(config.model_path or ""), params)
    if not model:
        raise ModelLoadError(f"{config.model_path} cannot be loaded: {_reason()}")
    reason = _unfit(model)
    if reason is not None:
        lc.llama_model_free(model)
        raise ModelLoadError(f"{config.model_path} is not a text generation model ({reason})")
    return model


def _report(on_progress: LoadProgress, fraction: float) -> bool:
    """True: go on loading. 1.0 is reported when the context is there too."""
    try:
        on_progress(min(fraction, 0.99))
    except Exception:  # in a C callback it would be swallowed, and end the loading
        logger.exception("load_progress_failed")
    return True


def _unfit(model: Any) -> str | None:
    if lc.llama_model_is_diffusion(model):
        return "diffusion"
    if lc.llama_model_has_encoder(model) or not lc.llama_model_has_decoder(model):
        return "it has an encoder"
    if lc.llama_vocab_type(lc.llama_model_get_vocab(model)) == lc.LLAMA_VOCAB_TYPE_NONE:
        return "it has no vocabulary"
    return None


def _n_ctx(config: ModelConfig, n_ctx_train: int) -> int:
    """What one request may use: not more than the model was trained on, or than the cells."""
    n_ctx = config.n_ctx
    if 0 < n_ctx_train < n_ctx:
        logger.warning("n_ctx_lowered from=%d to=%d reason=trained_context", n_ctx, n_ctx_train)
        n_ctx = n_ctx_train
    if config.kv_unified and config.kv_cells is not None and config.kv_cells < n_ctx:
        logger.warning("n_ctx_lowered from=%d to=%d reason=kv_cells", n_ctx, config.kv_cells)
        n_ctx = config.kv_cells
    return n_ctx


def _new_context(
    model: Any, header: GgufHeader, config: ModelConfig, n_ctx: int, n_sequences: int
) -> Any:
    n_threads = config.n_threads or cells.usable_cores()
    params = lc.llama_context_default_params()
    params.n_ctx = _n_cells(header, config, n_ctx, n_sequences)
    params.n_seq_max = n_sequences
    params.n_batch = params.n_ubatch = max(_batch_tokens(config), n_sequences)
    n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    params.n_outputs_max = _max_outputs(n_vocab, n_sequences, params.n_batch)
    params.n_threads = params.n_threads_batch = n_threads
    params.flash_attn_type = _FLASH[config.flash_attention]
    params.kv_unified = config.kv_unified
    params.swa_full = True  # a window that has moved on could not be cut back
    params.no_perf = True
    _log.clear()
    context = lc.llama_init_from_model(model, params)
    if not context:
        raise ModelLoadError(
            f"no context of {params.n_ctx} KV cells for {config.model_path}: {_reason()}"
        )
    return context


def _max_outputs(n_vocab: int, n_sequences: int, n_batch: int) -> int:
    """Rows of logits that one step may have. They cost memory on the host and on the device."""
    spare = min(SPARE_OUTPUTS, SPARE_OUTPUT_BYTES // (n_vocab * 4))
    return min(n_batch, n_sequences + spare)


def _batch_tokens(config: ModelConfig) -> int:
    """On a CPU a larger step computes no faster, it only makes running streams wait longer."""
    if config.batch_tokens is not None:
        return config.batch_tokens
    return BATCH_TOKENS_GPU if _log.n_offloaded else BATCH_TOKENS_CPU


def _n_cells(header: GgufHeader, config: ModelConfig, n_ctx: int, n_sequences: int) -> int:
    devices = list_devices(lc._lib)
    on_gpu = bool(_log.n_offloaded) and free_gpu_bytes(devices) > 0
    cell_bytes = cells.bytes_per_cell(header)
    if on_gpu:
        available = max(0, free_gpu_bytes(devices) - cells.GPU_RESERVE_BYTES)
        cell_bytes += 2 * _batch_tokens(config)  # of the compute buffer, measured on one H100
    else:
        available = cells.available_memory()
    share = cells.GPU_SHARE if on_gpu else cells.CPU_HARD_SHARE
    if not config.kv_unified:
        wanted = cells.round_up(n_ctx) * n_sequences
    elif config.kv_cells is not None:
        wanted = cells.round_up(config.kv_cells)
    else:
        return cells.fit_cells(
            n_ctx=n_ctx,
            n_running=max(1, n_sequences - config.cached_sequences),
            cell_bytes=cell_bytes,
            available_bytes=available,
            on_gpu=on_gpu,
        )
    cells.require_fit(wanted, cell_bytes, int(available * share), on_gpu=on_gpu)
    return wanted


def _reason() -> str:
    return _log.last_error() or "llama.cpp gives no reason"


def _facts(
    model: Any,
    context: Any,
    header: GgufHeader,
    config: ModelConfig,
    n_ctx: int,
    vocabulary: Vocabulary,
) -> ModelFacts:
    template = lc.llama_model_chat_template(model, None)
    n_layers = lc.llama_model_n_layer(model)
    version = f"{llama_cpp.__version__}/{lc.llama_version().decode()}"
    return ModelFacts(
        fingerprint=fingerprint(header, (version, "kv=f16", f"flash={config.flash_attention}")),
        architecture=header.architecture,
        n_ctx=n_ctx,
        n_ctx_train=lc.llama_model_n_ctx_train(model),
        kv_cells=lc.llama_n_ctx(context),
        n_sequences=lc.llama_n_seq_max(context),
        batch_tokens=lc.llama_n_batch(context),
        max_outputs=_max_outputs(
            vocabulary.n_tokens, lc.llama_n_seq_max(context), lc.llama_n_batch(context)
        ),
        n_vocab=vocabulary.n_tokens,
        n_layers=n_layers,
        n_gpu_layers=_n_offloaded(config, n_layers),
        n_params=lc.llama_model_n_params(model),
        model_bytes=header.file_bytes,
        unified=config.kv_unified,
        asynchronous=_n_offloaded(config, n_layers) > 0,
        can_cut=not (lc.llama_model_is_recurrent(model) or lc.llama_model_is_hybrid(model)),
        chat_template=template.decode("utf-8", "replace") if template else None,
        bos_text=vocabulary.spelt(lc.llama_vocab_bos(vocabulary.pointer)),
        eos_text=vocabulary.spelt(lc.llama_vocab_eos(vocabulary.pointer)),
        devices=list_devices(lc._lib),
        system_info=lc.llama_print_system_info().decode("utf-8", "replace").strip(),
    )


def _n_offloaded(config: ModelConfig, n_layers: int) -> int:
    """Layers on a GPU. llama.cpp counts the output layer as one more; here it is not counted."""
    if not lc.llama_supports_gpu_offload():
        return 0
    n_offloaded = _log.n_offloaded if _log.n_offloaded is not None else config.n_gpu_layers
    return max(0, min(n_offloaded, n_layers + 1) - 1)  # the output layer is the first to move
