"""A short generation that a worker must finish before it serves; an embedding or a score where the
model generates nothing. Pure.

A model that loads may still be unusable: weights that are NaN, a cache that does not fit the
kernels, a driver that fails on the first batch. The trial exercises all of them.
"""

from collections.abc import Callable

from gpufc.facts import Pooling
from gpufc.ids import RequestId, RequestNo
from gpufc.protocol import (
    Embed,
    Embedded,
    EmbeddingInput,
    Generate,
    PairPrompt,
    Prepare,
    Prepared,
    Refused,
    Step,
    TextPrompt,
    Tokens,
)
from gpufc.sampling import SamplingParams
from supervisor.fleet.port import WorkerHandle, WorkerMessage

NUMBER = RequestNo(0)
"""Dispatch counts from 1, and a worker on trial has no other requests."""
N_TOKENS = 8
PROMPT = "Hello, how are you?"
FALLBACK: Tokens = (0,)
"""The prompt for a model with a tokenizer that returns no token for `PROMPT`."""


class Trial:
    """One worker's trial. `settled` is called once at most: None if it passed, else the failure.

    A worker that ends before has not settled its trial."""

    def __init__(self, settled: Callable[[str | None], None]) -> None:
        self._settled: Callable[[str | None], None] | None = settled
        self._n_tokens = 0

    def begin(self, worker: WorkerHandle) -> None:
        """Send the prompt."""
        if not worker.facts.generates:
            worker.send(Embed(worker.epoch, NUMBER, (_input(worker),), truncate=True))
            return
        worker.send(Prepare(worker.epoch, NUMBER, TextPrompt(PROMPT), N_TOKENS))

    def feed(self, worker: WorkerHandle, message: WorkerMessage) -> None:
        """Handle a message of the worker."""
        match message:
            case Prepared():
                worker.send(_generate(worker, tuple(message.prompt_tokens) or FALLBACK))
            case Refused():
                self._settle(f"it refuses a short prompt: {message.message}")
            case Step():
                self._step(message)
            case Embedded():
                self._settle(None)
            case _:
                self._settle(f"it answers nonsense: {type(message).__name__}")

    def _step(self, step: Step) -> None:
        for delta in step.deltas:
            self._n_tokens += len(delta.tokens)
            if delta.finish is not None:
                self._settle(None if self._n_tokens else "it generated no token")

    def _settle(self, failure: str | None) -> None:
        settled, self._settled = self._settled, None
        if settled is not None:
            settled(failure)


def _input(worker: WorkerHandle) -> EmbeddingInput:
    is_rank = worker.facts.pooling is Pooling.RANK
    return PairPrompt(PROMPT, PROMPT) if is_rank else TextPrompt(PROMPT)


def _generate(worker: WorkerHandle, prompt: Tokens) -> Generate:
    return Generate(
        worker.epoch,
        NUMBER,
        RequestId("trial"),
        0,
        prompt,
        SamplingParams(seed=0, temperature=0.0, ignore_eos=True),
        max_tokens=N_TOKENS,
        cache_prompt=False,
        scope="trial",
    )
