"""The configuration as llama.cpp's parameters. The bindings are passed in."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

from engine_worker import host
from engine_worker.backend.llama.devices import device_handles
from engine_worker.backend.port import SPARE_OUTPUTS
from engine_worker.placement.cells import Layout
from engine_worker.placement.layers import split_shares
from gpufc.config import FlashAttention, KvType, ModelConfig, SplitMode
from gpufc.facts import EngineDevice

SMALL_MODEL_BYTES = 1 << 30
"""A GPU computes a pass of fewer weights in hardly more time for more tokens."""

SPARE_OUTPUT_BYTES = 32 << 20
"""Most memory for `SPARE_OUTPUTS`: they are fewer with a vocabulary of more than 128 Ki. On the
host it is four times as much where a device looks for the first tokens (`device_top_k`)."""

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
# enum ggml_type, of which the bindings do not have all
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
    """Most tokens of one step, and of the forward passes that it is computed in: for so many
    llama.cpp reserves memory."""

    step: int
    one_pass: int


CPU_SIZES = Sizes(128, 128)
GPU_SIZES = Sizes(2048, 1024)
SMALL_ON_GPU_SIZES = Sizes(4096, 2048)
"""By default. Measured: see DESIGN.md."""


def step_sizes(config: ModelConfig, n_sequences: int, *, on_gpu: bool, model_bytes: int) -> Sizes:
    """Room for every sequence's next token at least.

    On a CPU a larger step computes no faster, it only makes running streams wait longer.
    """
    usual = CPU_SIZES
    if on_gpu:
        usual = SMALL_ON_GPU_SIZES if model_bytes <= SMALL_MODEL_BYTES else GPU_SIZES
    step = max(config.batch_tokens or usual.step, n_sequences)
    return Sizes(step, min(step, max(usual.one_pass, GPU_SIZES.one_pass)))


def max_outputs(n_vocab: int, n_sequences: int, n_batch: int) -> int:
    """Rows of logits that one step may have. They cost memory on the host and on the device."""
    spare = min(SPARE_OUTPUTS, SPARE_OUTPUT_BYTES // (n_vocab * 4))
    return min(n_batch, n_sequences + spare)


def flash_attention(config: ModelConfig, *, on_gpu: bool) -> FlashAttention:
    """What to ask llama.cpp for. `auto`, which leaves it to llama.cpp, remains on a GPU only.

    Packed values can be read by flash attention only. Else a CPU decodes faster without it, the
    more so the longer the context is (DESIGN.md).
    """
    if config.flash_attention is not FlashAttention.AUTO:
        return config.flash_attention
    if config.cache_type_v not in _PLAIN_TYPES:
        return FlashAttention.ON
    return FlashAttention.AUTO if on_gpu else FlashAttention.OFF


def model_parameters(
    lc: Any, config: ModelConfig, devices: Sequence[EngineDevice], n_layers: int
) -> Any:
    """`llama_model_params` for `n_layers` on these GPUs; llama.cpp counts the output layer too."""
    params = lc.llama_model_default_params()
    params.n_gpu_layers = n_layers + 1 if n_layers else 0
    params.load_mode = getattr(
        lc, f"LLAMA_LOAD_MODE_{_LOAD_MODES[config.use_mmap, config.use_mlock]}"
    )
    params.split_mode = getattr(lc, f"LLAMA_SPLIT_MODE_{_SPLIT_MODES[config.split_mode]}")
    if config.devices is not None or config.split_mode is SplitMode.NONE:
        # already the one that main_gpu names, where all is to be on one
        names = [one.name for one in devices]
        params.devices = ctypes.cast(device_handles(lc._lib, names), ctypes.c_void_p)
    else:
        params.main_gpu = config.main_gpu
    shares = split_shares(config.tensor_split)
    if shares:
        size = lc.llama_max_devices()
        params.tensor_split = (ctypes.c_float * size)(*shares[:size])
    return params


def context_parameters(
    lc: Any,
    config: ModelConfig,
    layout: Layout,
    n_sequences: int,
    *,
    sizes: Sizes,
    n_vocab: int,
    on_gpu: bool,
    whole: bool,
) -> Any:
    """`llama_context_params`. `whole`: all layers are on GPUs. What is left for the CPU then, rows
    of an embedding, takes longer to share among threads than to do."""
    params = lc.llama_context_default_params()
    params.n_ctx = layout.n_cells
    params.kv_unified = layout.unified
    params.n_seq_max = n_sequences
    params.n_batch, params.n_ubatch = sizes
    params.n_outputs_max = max_outputs(n_vocab, n_sequences, params.n_batch)
    params.n_threads = config.n_threads or (1 if whole else host.usable_cores())
    params.n_threads_batch = config.n_threads_batch or params.n_threads
    flash = _FLASH[flash_attention(config, on_gpu=on_gpu)]
    params.flash_attn_type = getattr(lc, f"LLAMA_FLASH_ATTN_TYPE_{flash}")
    params.type_k = _TYPES[config.cache_type_k]
    params.type_v = _TYPES[config.cache_type_v]
    params.swa_full = True  # a window that has moved on could not be cut back
    params.no_perf = True
    return params
