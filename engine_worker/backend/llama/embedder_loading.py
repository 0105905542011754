"""From a loaded model to its embedder: sizes, parameters, and the memory that it takes.

A model that only embeds has the embedder's context and no other. A model that generates gets a
second, smaller context at the first request for an embedding.
"""

import logging
from typing import NamedTuple

from msgspec import Struct

from engine_worker import host
from engine_worker.backend.embedder import PassLimits
from engine_worker.backend.llama import parameters
from engine_worker.backend.llama.bindings import Bindings, ContextPointer, ModelPointer
from engine_worker.backend.llama.computing import Computing
from engine_worker.backend.llama.embedder import LlamaEmbedder, MeanEmbedder
from engine_worker.backend.llama.log import LlamaLog
from engine_worker.backend.llama.vectors_only import end_at_vectors
from engine_worker.model_file.gguf_header import GgufHeader
from engine_worker.model_file.purpose import pooling_of
from engine_worker.placement import cells
from gpufc.config import FlashAttention, ModelConfig
from gpufc.errors import EngineUnavailable, MemoryShort
from gpufc.facts import Pooling

logger = logging.getLogger(__name__)

N_INPUTS = 32
"""Inputs of one pass. More would hardly be faster, and each may have a state of its own."""

SPLIT_TOKENS = 512
"""Tokens of one pass where an input may be split."""

BESIDE_TOKENS = 128
"""Tokens of one pass beside generation: a request that arrives meanwhile waits for it."""

BESIDE_INPUT_TOKENS = 8192
"""The longest input of a model that generates. OpenAI's models take as many."""

BESIDE_BYTES = 1 << 30
"""Memory for the cells of the longest input, at most. The front replaces a worker that grows
by much more."""

LOGITS_BYTES = 64 << 20
"""At most this much memory for the logits that llama.cpp computes with the vectors, unasked."""

RETRY_AFTER_S = 30.0


class Shape(NamedTuple):
    """The limits of an embedder. `n_tokens` are of one pass, `n_input_tokens` of the longest
    input."""

    n_tokens: int
    n_input_tokens: int
    may_split: bool

    @property
    def limits(self) -> PassLimits:
        return PassLimits(N_INPUTS, self.n_tokens, self.may_split)

    def flash_attention(self, config: ModelConfig, *, on_gpu: bool) -> FlashAttention:
        """The flash attention to ask llama.cpp for.

        A whole input needs it, since the scores of all its tokens would take much memory. On a CPU
        it adds up cached values in half precision, which other inputs are spared.
        """
        if not self.may_split:
            return config.flash_attention
        asked = parameters.flash_attention(config, on_gpu=on_gpu)
        return FlashAttention.OFF if asked is FlashAttention.AUTO and not on_gpu else asked

    @property
    def n_cells(self) -> int:
        """The longest input may be half computed while the next ones begin."""
        return cells.round_up(self.n_input_tokens + self.n_tokens * self.may_split)


def shape_beside(n_ctx: int, n_vocab: int, cell_bytes: int) -> Shape:
    """The shape beside the generation of a model with a context of `n_ctx` tokens."""
    n_tokens = min(BESIDE_TOKENS, max(1, LOGITS_BYTES // (4 * n_vocab)), n_ctx)
    n_fitting = max(cells.GRANULE, BESIDE_BYTES // cell_bytes)
    return Shape(n_tokens, min(n_ctx, BESIDE_INPUT_TOKENS, n_fitting), True)


def shape_alone(header: GgufHeader, n_ctx: int) -> Shape:
    """The shape for a model that generates no text.

    The graph pools what is in one pass. So an input is computed whole, unless its last token alone
    counts.
    """
    is_causal = header.metadata.get(f"{header.architecture}.attention.causal") is not False
    if pooling_of(header) is Pooling.LAST and is_causal:
        return Shape(min(SPLIT_TOKENS, n_ctx), n_ctx, True)
    return Shape(n_ctx, n_ctx, False)


class SecondContext(Struct, frozen=True):
    """What is needed to make the embedder of a model that generates."""

    bindings: Bindings
    log: LlamaLog
    config: ModelConfig
    model: ModelPointer
    computing: Computing
    shape: Shape
    on_gpu: bool
    whole: bool
    cell_bytes: int
    """Of one cell, with the compute buffer that grows with the cells."""
    device_room_bytes: int | None = None
    """What the model has left of the process's limit for GPUs; None without a limit."""

    def open(self) -> MeanEmbedder:
        """Make the context. Raises `EngineUnavailable` where memory is short."""
        lc, n_cells = self.bindings, self.shape.n_cells
        try:
            self._require_memory(n_cells)
        except MemoryShort as err:
            raise _unavailable(str(err)) from err
        params = parameters.embedding_parameters(
            lc,
            self.config,
            n_cells=n_cells,
            n_inputs=N_INPUTS,
            n_tokens=self.shape.n_tokens,
            pooling=None,
            flash=self.shape.flash_attention(self.config, on_gpu=self.on_gpu),
            whole=self.whole,
        )
        kept = None if self.on_gpu else end_at_vectors(lc, params)
        self.log.clear()
        context = lc.llama_init_from_model(self.model, params)
        if not context:
            raise _unavailable(self.log.last_error() or "llama.cpp gives no reason")
        logger.info("embedder_opened n_cells=%d n_tokens=%d", n_cells, self.shape.n_tokens)
        size = lc.llama_model_n_embd_out(self.model)
        return MeanEmbedder(lc, self.log, context, self.computing, self.shape.limits, size, kept)

    def _require_memory(self, n_cells: int) -> None:
        """A device's free memory is not looked at: llama.cpp refuses there, and aborts nothing. It
        does not know the limit."""
        room = self.device_room_bytes if self.on_gpu else host.available_memory() - LOGITS_BYTES
        if room is None:
            return
        store = cells.Store(
            cell_bytes=self.cell_bytes,
            score_bytes=0,
            available_bytes=room,
            on_gpu=self.on_gpu,
        )
        cells.require_fit(n_cells, n_cells, [store])


def only_embedder(
    lc: Bindings,
    log: LlamaLog,
    model: ModelPointer,
    context: ContextPointer,
    computing: Computing,
    shape: Shape,
    pooling: Pooling,
) -> LlamaEmbedder:
    """The embedder of a model that generates no text, which takes its context over."""
    is_rank = pooling is Pooling.RANK
    size = lc.llama_model_n_cls_out(model) if is_rank else lc.llama_model_n_embd_out(model)
    return LlamaEmbedder(lc, log, context, computing, shape.limits, size)


def _unavailable(reason: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"There is no memory for embeddings now: {reason}", retry_after_s=RETRY_AFTER_S
    )
