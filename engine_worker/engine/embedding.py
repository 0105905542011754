"""The embedder's turn after each step: carries out what `engine_worker.embedding` plans."""

import time
from collections.abc import Callable

import numpy as np

from engine_worker.backend.embedder import Embedder, Vector
from engine_worker.backend.port import Backend
from engine_worker.embedding import vectors
from engine_worker.embedding.budget import EmbeddingBudget
from engine_worker.embedding.queue import Done, EmbeddingQueue
from engine_worker.engine.reporter import Reporter
from engine_worker.prompts.embedding_inputs import Wanted
from engine_worker.scheduling.step_costs import StepCosts
from gpufc.errors import DecodeFailed, InternalError, RequestError
from gpufc.facts import Pooling
from gpufc.ids import RequestNo
from gpufc.protocol import Embedded, Embedding


class EmbeddingTurn:
    """Every `Wanted` that is added is answered by `Embedded` or `Refused`, unless it is removed.

    The embedder is made for the first one: it takes memory.
    """

    def __init__(
        self, backend: Backend, reporter: Reporter, costs: StepCosts, *, on_device: bool
    ) -> None:
        """`costs` are those of the steps of generation."""
        self._backend = backend
        self._reporter = reporter
        self._budget = EmbeddingBudget(costs, on_device=on_device)
        self._ranks = backend.facts.pooling is Pooling.RANK
        self._embedder: Embedder | None = None
        self._queue: EmbeddingQueue | None = None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute."""
        return self._queue is None or self._queue.is_idle

    def add(self, wanted: Wanted) -> None:
        try:
            self._opened().add(wanted)
        except RequestError as err:
            self._reporter.refused(wanted.request, err)

    def remove(self, request: RequestNo | None = None) -> None:
        """Drop a request, or all."""
        if self._queue is not None and self._embedder is not None:
            for slot in self._queue.remove(request):
                self._embedder.drop(slot)

    def run(self, n_decoding: int, n_prefill: int, note: Callable[[int], None]) -> None:
        """One pass, after a step that decoded and computed so much, if there is something to
        compute. `note` is told its tokens before. Raises `DecodeFailed`, which is reported."""
        queue, embedder = self._queue, self._embedder
        if queue is None or embedder is None or queue.is_idle:
            return
        spans = queue.plan(self._budget.allowance(n_decoding, n_prefill))
        if not spans:
            return
        self._reporter.flush()
        n_tokens = sum(len(span.tokens) for span in spans)
        note(n_tokens)
        began = time.monotonic()
        try:
            found = embedder.compute(spans)
        except DecodeFailed as err:
            self._reporter.failed(queue.requests(len(spans)), err)
            raise
        self._budget.computed(n_tokens, time.monotonic() - began)
        for done in queue.computed(spans, found):
            self._answer(done)

    def _opened(self) -> EmbeddingQueue:
        if self._queue is None:
            self._embedder = self._backend.embedder()
            self._queue = EmbeddingQueue(self._embedder.limits)
        return self._queue

    def _answer(self, done: Done) -> None:
        wanted = done.wanted
        if not all(np.isfinite(vector).all() for vector in done.vectors):
            broken = InternalError("The model has computed a vector that is not finite")
            self._reporter.refused(wanted.request, broken)
            return
        results = tuple(
            Embedding(self._result(vector, wanted.dimensions), len(tokens))
            for vector, tokens in zip(done.vectors, wanted.inputs, strict=True)
        )
        self._reporter.send(Embedded(wanted.epoch, wanted.request, results))

    def _result(self, vector: Vector, dimensions: int | None) -> bytes:
        return vectors.score(vector) if self._ranks else vectors.embedding(vector, dimensions)
