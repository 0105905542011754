"""Preemption and replay on the real model: exact means to the last bit."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from gpufc.config import ModelConfig, Replay
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams
from tests.engine_worker.engine.engine_runs import EngineRun

pytestmark = pytest.mark.model

N_TOKENS, N_POSITIONS = 16, 12
CHAT = "<|im_start|>user\nTell me about foxes and hens.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def backend(model_path: Path) -> Iterator[LlamaBackend]:
    config = ModelConfig(model_path=str(model_path), n_ctx=512, kv_cells=1024, n_threads=1)
    loaded = LlamaBackend.load(config, 4, lambda _: None)
    yield loaded
    loaded.close()


def generate(backend: LlamaBackend, request: int, sampling: SamplingParams) -> Generate:
    prompt = backend.tokenize(CHAT, add_special=True, parse_special=True)
    return Generate(
        Epoch(1),
        RequestNo(request),
        RequestId("replayed"),
        choice=0,
        prompt_tokens=tuple(prompt),
        sampling=sampling,
        max_tokens=N_TOKENS,
        replay=Replay.EXACT,
    )


def test_a_sequence_preempted_at_each_of_12_positions_equals_the_undisturbed_one(
    backend: LlamaBackend,
) -> None:
    """One sequence, preempted after each of its first 12 tokens: each replay starts from the text
    that the replay before it has made."""
    sampling = SamplingParams(seed=7, repeat_penalty=1.3)
    run = EngineRun(backend, batch_tokens=16)
    run.run(generate(backend, 1, sampling))
    undisturbed = run.tokens(1)
    scheduler, request = run.engine.scheduler, RequestNo(2)
    preempted: list[int] = []

    def preempt_at_each_position() -> None:
        found = scheduler.find(request)
        if found is not None and found.n_generated == len(preempted) + 1 <= N_POSITIONS:
            preempted.append(found.n_generated)
            scheduler.preempt(found)

    run.run(generate(backend, request, sampling), between=preempt_at_each_position)
    assert preempted == list(range(1, N_POSITIONS + 1))
    assert run.tokens(request) == undisturbed
