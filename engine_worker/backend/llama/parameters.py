"""The configuration as llama.cpp's parameters."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from engine_worker import host
from engine_worker.backend.llama.bindings import Bindings, Parameters, constant, library_of
from engine_worker.backend.llama.devices import device_handles
from engine_worker.backend.port import SPARE_OUTPUTS, step_tokens
from engine_worker.placement.cells import Layout
from gpufc.config import FlashAttention, KvType, ModelConfig, Replay, SplitMode
from gpufc.facts import EngineDevice, Pooling

SMALL_MODEL_BYTES = 1 << 30
"""A smaller model has larger passes on a GPU. Measured on one H100: a pass that reads few weights
takes hardly longer with more tokens."""

SPARE_OUTPUT_BYTES = 32 << 20
"""At most this much memory for `SPARE_OUTPUTS`, which are fewer with a large vocabulary. A finder
in the graph takes three times as much again on the host."""

_SPLIT_MODES = {SplitMode.NONE: "NONE", SplitMode.LAYER: "LAYER", SplitMode.ROW: "ROW"}
_FLASH = {
    FlashAttention.AUTO: "AUTO",
    FlashAttention.ON: "ENABLED",
    FlashAttention.OFF: "DISABLED",
}
# (use_mmap, use_mlock) → LLAMA_LOAD_MODE_…
_LOAD_MODES = {
    (False, False): "NONE",
    (True, False): "MMAP",
    (False, True): "MLOCK",
    (True, True): "MMAP_MLOCK",
}
# enum ggml_type; the bindings lack some of its values
_TYPES = {
    KvType.F32: 0,
    KvType.F16: 1,
    KvType.BF16: 30,
    KvType.Q8_0: 8,
    KvType.Q5_1: 7,
    KvType.Q5_0: 6,
    KvType.Q4_1: 3,
    KvType.Q4_0: 2,
}
_PLAIN_TYPES = frozenset({KvType.F16, KvType.BF16, KvType.F32})


class Sizes(NamedTuple):
    """The most tokens of one step, and of one forward pass of it. llama.cpp reserves memory for
    that many."""

    step: int
    one_pass: int


CPU_SIZES = Sizes(128, 128)
MOST_CPU_TOKENS, CPU_TOKENS_A_THREAD = 512, 32
GPU_SIZES = Sizes(2048, 1024)
SMALL_ON_GPU_SIZES = Sizes(4096, 2048)
"""Defaults. Measured: tokens/s and the longest step of a two-core host and of one H100. With 16
threads a prompt of 1,500 tokens takes 0.91 of the time in steps of 512 tokens."""


def step_sizes(config: ModelConfig, n_sequences: int, *, on_gpu: bool, model_bytes: int) -> Sizes:
    """Sizes with the room that `step_tokens` leaves.

    Few threads compute a larger step no faster; it only makes running streams wait longer.
    """
    usual = cpu_sizes(config.n_threads_batch or config.n_threads or host.usable_cores())
    if on_gpu:
        usual = SMALL_ON_GPU_SIZES if model_bytes <= SMALL_MODEL_BYTES else GPU_SIZES
    step = step_tokens(usual.step, n_sequences, config.batch_tokens)
    return Sizes(step, min(step, max(usual.one_pass, GPU_SIZES.one_pass)))


def cpu_sizes(n_threads: int) -> Sizes:
    """The sizes for so many threads: each has the same share of a step as on the smallest host."""
    n_tokens = min(MOST_CPU_TOKENS, max(CPU_SIZES.step, CPU_TOKENS_A_THREAD * n_threads))
    return Sizes(n_tokens, n_tokens)


def max_outputs(n_vocab: int, n_sequences: int, n_batch: int) -> int:
    """The most rows of logits of one step. Each takes memory on the host and on the device."""
    spare = min(SPARE_OUTPUTS, SPARE_OUTPUT_BYTES // (n_vocab * 4))
    return min(n_batch, n_sequences + spare)


def flash_attention(config: ModelConfig, *, on_gpu: bool) -> FlashAttention:
    """The flash attention to ask llama.cpp for. `auto` leaves the choice to llama.cpp.

    Only flash attention reads packed values. On a CPU it is the faster way for F16 alone: llama.cpp
    computes these prompts in tiles, and makes F16 of F32 at every step (NOTES.md). Its sums there
    depend on the number of threads, which an exact replay on another host may not have.
    """
    if config.flash_attention is not FlashAttention.AUTO:
        return config.flash_attention
    if config.cache_type_v not in _PLAIN_TYPES:
        return FlashAttention.ON
    is_f16 = config.cache_type_k is config.cache_type_v is KvType.F16
    is_left = on_gpu or (is_f16 and config.replay is not Replay.EXACT)
    return FlashAttention.AUTO if is_left else FlashAttention.OFF


def model_parameters(
    lc: Bindings,
    config: ModelConfig,
    devices: Sequence[EngineDevice],
    n_layers: int,
    shares: Sequence[float] = (),
) -> Parameters:
    """`llama_model_params` for `n_layers` on these GPUs, spread by `shares`, or else by what is
    free. llama.cpp counts the output layer too."""
    params = lc.llama_model_default_params()
    params.n_gpu_layers = n_layers + 1 if n_layers else 0
    load_mode = _LOAD_MODES[config.use_mmap, config.use_mlock]
    params.load_mode = constant(lc, f"LLAMA_LOAD_MODE_{load_mode}")
    params.split_mode = constant(lc, f"LLAMA_SPLIT_MODE_{_SPLIT_MODES[config.split_mode]}")
    if config.devices is not None or config.split_mode is SplitMode.NONE:
        # with SplitMode.NONE the only device is already the one that main_gpu names
        names = [one.name for one in devices]
        params.devices = ctypes.cast(device_handles(library_of(lc), names), ctypes.c_void_p)
    else:
        params.main_gpu = config.main_gpu
    if any(shares):  # without any, llama.cpp decides
        size = lc.llama_max_devices()
        params.tensor_split = (ctypes.c_float * size)(*shares[:size])
    return params


def context_parameters(
    lc: Bindings,
    config: ModelConfig,
    layout: Layout,
    n_sequences: int,
    *,
    sizes: Sizes,
    n_vocab: int,
    on_gpu: bool,
    whole: bool,
    windowed: bool,
    hybrid: bool,
) -> Parameters:
    """`llama_context_params`. `whole`: all layers are on GPUs. The CPU then only looks up rows of
    an embedding, which one thread does faster than several. `windowed`: some layers attend to a
    sliding window only. `hybrid`: some layers have a recurrent state, and some attend."""
    params = lc.llama_context_default_params()
    params.n_ctx = layout.n_cells
    params.kv_unified = layout.unified
    params.n_seq_max = n_sequences
    params.n_batch, params.n_ubatch = sizes
    if windowed and layout.unified:
        # a second pass takes cells that the window of a draft has passed, and the draft may fail
        params.n_batch = params.n_ubatch
    if hybrid and not layout.unified:
        # the graph that llama.cpp reserves has equally many tokens of each sequence; for a pass
        # that cannot be divided so, that of Kimi Linear aborts the process
        params.n_ubatch -= params.n_ubatch % n_sequences
    params.n_outputs_max = max_outputs(n_vocab, n_sequences, params.n_batch)
    params.n_threads, params.n_threads_batch = _threads(config, whole=whole)
    flash = _FLASH[flash_attention(config, on_gpu=on_gpu)]
    params.flash_attn_type = constant(lc, f"LLAMA_FLASH_ATTN_TYPE_{flash}")
    params.type_k = _TYPES[config.cache_type_k]
    params.type_v = _TYPES[config.cache_type_v]
    params.swa_full = True  # a sliding window that has moved on could not be cut back
    params.no_perf = True
    return params


def _threads(config: ModelConfig, *, whole: bool) -> tuple[int, int]:
    """CPU threads for steps of few tokens, and for those of a prompt."""
    if config.n_threads is not None:
        return config.n_threads, config.n_threads_batch or config.n_threads
    n_cores = 1 if whole else host.usable_cores()
    return host.decoding_threads(n_cores), config.n_threads_batch or n_cores


_POOLINGS = {
    None: "NONE",
    Pooling.MEAN: "MEAN",
    Pooling.CLS: "CLS",
    Pooling.LAST: "LAST",
    Pooling.RANK: "RANK",
}


def embedding_parameters(
    lc: Bindings,
    config: ModelConfig,
    *,
    n_cells: int,
    n_inputs: int,
    n_tokens: int,
    pooling: Pooling | None,
    flash: FlashAttention,
    whole: bool,
) -> Parameters:
    """`llama_context_params` of an embedder. `n_tokens` are computed in one pass, in which every
    token has an output. Without `pooling` the graph gives the vector of each token."""
    params = lc.llama_context_default_params()
    params.n_ctx, params.kv_unified, params.n_seq_max = n_cells, True, n_inputs
    params.n_batch = params.n_ubatch = params.n_outputs_max = n_tokens
    params.embeddings = True
    params.pooling_type = constant(lc, f"LLAMA_POOLING_TYPE_{_POOLINGS[pooling]}")
    threads = config.n_threads_batch or config.n_threads
    params.n_threads = threads or (1 if whole else host.usable_cores())
    params.n_threads_batch = params.n_threads
    params.flash_attn_type = constant(lc, f"LLAMA_FLASH_ATTN_TYPE_{_FLASH[flash]}")
    params.swa_full = True
    params.no_perf = True
    return params
