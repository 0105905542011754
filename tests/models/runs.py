"""A tiny model in the engine, step by step, beside its reference."""

import fcntl
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.kv.transfer import SEALS
from engine_worker.speculation.drafter import Drafter
from gpufc.config import KvUnified, ModelConfig, Replay
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.lending import lent
from gpufc.protocol import ExportKv, Generate, ImportKv, KvMoved
from gpufc.sampling import SamplingParams
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.models.making import made
from tests.models.reference import Answer

N_CTX, N_RUNNING, N_CACHED = 768, 8, 6

Kind = TypeVar("Kind", bound=LlamaBackend)


def some_tokens(n_tokens: int, seed: int) -> list[int]:
    """A made-up prompt of plain text tokens."""
    numbers = random.Random(seed)
    return [numbers.randrange(33, 120) for _ in range(n_tokens)]


@contextmanager
def loaded(name: str, unified: KvUnified, n_ctx: int = N_CTX) -> Iterator[LlamaBackend]:
    """The tiny model `name` in one cache for all sequences, or in a stream each."""
    with loaded_as(LlamaBackend, name, unified, n_ctx) as backend:
        yield backend


@contextmanager
def loaded_as(
    kind: type[Kind], name: str, unified: KvUnified, n_ctx: int = N_CTX, **settings: Any
) -> Iterator[Kind]:
    """The same with a backend of this kind and more settings of `ModelConfig`."""
    config = ModelConfig(
        model_path=str(made(name)),
        n_ctx=n_ctx,
        n_threads=1,
        kv_unified=unified,
        cached_sequences=N_CACHED,
        **settings,
    )
    backend = kind.load(config, N_RUNNING + N_CACHED, lambda _: None)
    try:
        yield backend
    finally:
        backend.close()


class ModelRun:
    """An engine on a backend whose slots are emptied first."""

    def __init__(
        self, backend: LlamaBackend, max_idle: int = N_CACHED, drafter: Drafter | None = None
    ) -> None:
        """In one cache, no more than `max_idle` finished sequences stay as prefixes."""
        self._backend, self._max_idle, self._drafter = backend, max_idle, drafter
        for slot in range(backend.facts.n_sequences):
            backend.remove(slot)
        n_running = backend.facts.n_sequences - max_idle
        self.engine = EngineRun(backend, max_running=n_running, batch_tokens=128, drafter=drafter)
        self._n_requests = 0

    def request(
        self, prompt: Sequence[int], n_tokens: int, *, replay: Replay = Replay.FAST
    ) -> Generate:
        """A greedy request of its own number."""
        self._n_requests += 1
        return Generate(
            Epoch(1),
            RequestNo(self._n_requests),
            RequestId("tiny"),
            choice=0,
            prompt_tokens=tuple(prompt),
            sampling=SamplingParams(seed=1, temperature=0.0),
            max_tokens=n_tokens,
            replay=replay,
        )

    def answer(self, prompt: Sequence[int], n_tokens: int) -> list[int]:
        """The tokens of one request that runs alone."""
        request = self.request(prompt, n_tokens)
        self.engine.run(request)
        return self.engine.tokens(request.request)

    def answers(self, prompts: Sequence[Sequence[int]], n_tokens: int) -> list[list[int]]:
        """The tokens of requests that run at once."""
        requests = [self.request(prompt, n_tokens) for prompt in prompts]
        self.engine.run(*requests)
        return [self.engine.tokens(request.request) for request in requests]

    def run(self, request: Generate, between: Callable[[], None]) -> list[int]:
        """The tokens of a request; `between` is called after each step."""
        self.engine.run(request, between=between)
        return self.engine.tokens(request.request)

    @property
    def n_cached(self) -> int:
        """Tokens of the last started request that were found in the cache."""
        return self.engine.n_cached

    def succeeded(self) -> "ModelRun":
        """A run on the same backend that has got this one's states from a sealed memory file."""
        fd = os.memfd_create("kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with lent(fd):
                exported = self._moved(ExportKv(Epoch(1), os.getpid(), fd, limit_bytes=1 << 30))
                assert exported.n_sequences
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
                after = ModelRun(self._backend, self._max_idle, self._drafter)
                after._moved(ImportKv(Epoch(1), os.getpid(), fd))
                return after
        finally:
            os.close(fd)

    def _moved(self, message: ExportKv | ImportKv) -> KvMoved:
        self.engine.engine.inbox.put(message)
        self.engine.engine.take_requests()
        answer = self.engine.messages[-1]
        assert isinstance(answer, KvMoved)
        assert not answer.error
        return answer


def require_equal(tokens: Sequence[int], alone: Answer, *, least_clear: int = 4) -> int:
    """The tokens are those of the reference, up to its first one without a clear lead. Returns the
    number of tokens that were compared."""
    n_compared = alone.n_clear
    assert n_compared >= least_clear, "the prompt's answer is too uncertain to compare"
    assert list(tokens[:n_compared]) == alone.tokens[:n_compared]
    return n_compared
