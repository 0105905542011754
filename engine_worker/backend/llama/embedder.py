"""Embeddings and scores on llama.cpp: a context of their own, beside a model's other context or
as its only one.

A model for embeddings pools in its graph, since it may have layers behind the pooling. The vectors
of a model that generates text are averaged here, so that an input may be split over passes.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from engine_worker.backend.embedder import PassLimits, Span, Vector
from engine_worker.backend.llama.batch import BatchArrays
from engine_worker.backend.llama.bindings import ContextPointer, EmbeddingBindings
from engine_worker.backend.llama.computing import Computing
from engine_worker.backend.llama.log import LlamaLog
from engine_worker.backend.port import Batch
from gpufc.errors import DecodeFailed


class LlamaEmbedder:
    """Implements `Embedder` with one context, whose graph pools. `size` is that of a vector."""

    def __init__(
        self,
        bindings: EmbeddingBindings,
        log: LlamaLog,
        context: ContextPointer,
        computing: Computing,
        limits: PassLimits,
        size: int,
    ) -> None:
        """Takes ownership of the context."""
        self.limits = limits
        self._lc, self._log, self._computing = bindings, log, computing
        self._context: ContextPointer | None = context
        self._memory = bindings.llama_get_memory(context)
        self._batch = BatchArrays(bindings, limits.n_tokens)
        self._size = size

    def compute(self, spans: Sequence[Span]) -> list[Vector]:
        self._computing.start(partial(self._run, _batch_of(spans)))
        self._computing.wait()
        found = self._vectors(spans)
        for span in spans:
            if span.is_last:
                self._empty(span.slot)
        return found

    def drop(self, slot: int) -> None:
        self._empty(slot)

    def close(self) -> None:
        """See `Embedder`. A second call does nothing."""
        context, self._context = self._context, None
        if context is not None:
            self._lc.llama_free(context)

    def _vectors(self, spans: Sequence[Span]) -> list[Vector]:
        lc = self._lc
        pointers = [
            lc.llama_get_embeddings_seq(self._context, span.slot) for span in spans if span.is_last
        ]
        return [np.ctypeslib.as_array(one, (self._size,)).copy() for one in pointers]

    def _run(self, batch: Batch) -> None:
        lc, n_tokens = self._lc, len(batch.tokens)
        if not 0 < n_tokens <= self.limits.n_tokens:  # llama.cpp would abort the process
            raise DecodeFailed(f"a pass of {n_tokens} tokens, of at most {self.limits.n_tokens}")
        compute = lc.llama_decode if self._memory else lc.llama_encode
        code = compute(self._context, self._batch.fill(batch))
        if code != 0:
            reason = self._log.last_error() or "no reason"
            raise DecodeFailed(f"computing embeddings returned {code}: {reason}")

    def _empty(self, slot: int) -> None:
        if self._memory:
            self._lc.llama_memory_seq_rm(self._memory, slot, -1, -1)


class MeanEmbedder(LlamaEmbedder):
    """The mean of the vectors of an input's tokens. The context's graph does not pool."""

    def __init__(
        self,
        bindings: EmbeddingBindings,
        log: LlamaLog,
        context: ContextPointer,
        computing: Computing,
        limits: PassLimits,
        size: int,
        kept: object = None,
    ) -> None:
        """`kept` is what must live as long as the context."""
        super().__init__(bindings, log, context, computing, limits, size)
        self._kept = kept
        self._sums: dict[int, Vector] = {}

    def drop(self, slot: int) -> None:
        super().drop(slot)
        self._sums.pop(slot, None)

    def _vectors(self, spans: Sequence[Span]) -> list[Vector]:
        n_tokens = sum(len(span.tokens) for span in spans)
        rows = np.ctypeslib.as_array(
            self._lc.llama_get_embeddings(self._context), (n_tokens, self._size)
        )
        found = []
        start = 0
        for span in spans:
            end = start + len(span.tokens)
            total = self._sums.pop(span.slot, 0.0) + rows[start:end].sum(axis=0)
            if span.is_last:
                found.append((total / (span.start + len(span.tokens))).astype(np.float32))
            else:
                self._sums[span.slot] = total
            start = end
        return found


def _batch_of(spans: Sequence[Span]) -> Batch:
    """Every token is an output: a vector is made of all of them."""
    batch = Batch([], [], [], [])
    for span in spans:
        n_tokens = len(span.tokens)
        batch.tokens += span.tokens
        batch.positions += range(span.start, span.start + n_tokens)
        batch.sequences += [span.slot] * n_tokens
        batch.outputs += [True] * n_tokens
    return batch
