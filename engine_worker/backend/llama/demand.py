"""What a model demands, by its file's header and its configuration, before any of it is loaded.

Needs no binding: `engine_worker.reckon` asks before a worker is started, the loader when it loads.
"""

import logging

from engine_worker.backend.llama import parameters
from engine_worker.backend.llama.embedder_loading import N_INPUTS, Shape, shape_alone
from engine_worker.backend.llama.quirks import ALWAYS_STREAMS
from engine_worker.model_file.gguf_header import GgufHeader, original_context
from engine_worker.model_file.purpose import Purpose, purpose_of
from engine_worker.placement import cells, layers
from engine_worker.placement.footprint import footprint
from gpufc.config import FlashAttention, KvUnified, ModelConfig

logger = logging.getLogger(__name__)


class ModelDemand:
    """The demand of one model. `layers` has it for any number of layers on GPUs.

    `n_ctx` is the context that one request will have. `alone` is the embedder's shape, where the
    model generates no text.
    """

    def __init__(self, config: ModelConfig, header: GgufHeader, n_sequences: int) -> None:
        self._config, self._header, self._n_sequences = config, header, n_sequences
        self.n_ctx = _n_ctx(config, header)
        self.alone: Shape | None = None
        if purpose_of(header) is not Purpose.GENERATE:
            self.alone = shape_alone(header, self.n_ctx)
        on_gpu, on_cpu = (self.flash_attention(on_gpu=on_gpu) for on_gpu in (True, False))
        self.layers = layers.Demand(
            model=footprint(
                header,
                config.cache_type_k,
                config.cache_type_v,
                flash=FlashAttention.OFF not in (on_gpu, on_cpu),
            ),
            wish=self._wish(),
            gpu_batch=self.sizes(on_gpu=True).one_pass,
            cpu_batch=self.sizes(on_gpu=False).one_pass,
            flash_on_gpu=on_gpu is not FlashAttention.OFF,
            # llama.cpp's `auto` turns it off then: some operations would be on the other device
            flash_in_parts=on_gpu is FlashAttention.ON,
            flash_on_cpu=on_cpu is not FlashAttention.OFF,
        )

    def flash_attention(self, *, on_gpu: bool) -> FlashAttention:
        """The flash attention to ask llama.cpp for."""
        if self.alone is not None:
            return self.alone.flash_attention(self._config, on_gpu=on_gpu)
        return parameters.flash_attention(self._config, on_gpu=on_gpu)

    def sizes(self, *, on_gpu: bool) -> parameters.Sizes:
        """The most tokens of a step."""
        if self.alone is not None:
            return parameters.Sizes(self.alone.n_tokens, self.alone.n_tokens)
        return parameters.step_sizes(
            self._config,
            self._n_sequences,
            on_gpu=on_gpu,
            model_bytes=self._header.file_bytes,
        )

    def _wish(self) -> cells.Wish:
        config, n_sequences = self._config, self._n_sequences
        if self.alone is not None:
            return cells.Wish(
                n_ctx=self.alone.n_cells,
                n_running=1,
                n_sequences=N_INPUTS,
                unified=KvUnified.TRUE,
            )
        return cells.Wish(
            n_ctx=self.n_ctx,
            n_running=max(1, n_sequences - config.cached_sequences),
            n_sequences=n_sequences,
            unified=_unified(config, self._header),
            kv_cells=config.kv_cells,
            most_shared=_most_shared(self._header, self.n_ctx),
        )


def _n_ctx(config: ModelConfig, header: GgufHeader) -> int:
    """The context of one request: at most what the model was trained on, and the shared cells."""
    n_ctx, n_ctx_train = config.n_ctx, header.number(f"{header.architecture}.context_length")
    if 0 < n_ctx_train < n_ctx:
        logger.warning("n_ctx_lowered from=%d to=%d reason=trained_context", n_ctx, n_ctx_train)
        n_ctx = n_ctx_train
    shared = config.kv_unified is not KvUnified.FALSE and header.architecture not in ALWAYS_STREAMS
    if shared and config.kv_cells is not None and config.kv_cells < n_ctx:
        logger.warning("n_ctx_lowered from=%d to=%d reason=kv_cells", n_ctx, config.kv_cells)
        n_ctx = config.kv_cells
    return n_ctx


def _unified(config: ModelConfig, header: GgufHeader) -> KvUnified:
    """The layout to reckon with, and to ask for."""
    if header.architecture not in ALWAYS_STREAMS:
        return config.kv_unified
    if config.kv_unified is KvUnified.TRUE or config.kv_cells is not None:
        logger.warning("kv_unified_ignored reason=streams_only arch=%s", header.architecture)
    return KvUnified.FALSE


def _most_shared(header: GgufHeader, n_ctx: int) -> int | None:
    """A context within the original one keeps the short factors, which suit it. Only the operator's
    `kv_cells` may ask for more cells."""
    original = original_context(header)
    return None if original is None or n_ctx > original else original
