"""Preemption and replay on the real model: exact means to the last bit."""

from pathlib import Path

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from gpufc.config import ModelConfig, Replay
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams
from tests.engine_worker.engine.engine_runs import EngineRun

pytestmark = pytest.mark.model

N_TOKENS = 24
CHAT = "<|im_start|>user\nTell me about foxes and hens.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def backend(model_path: Path) -> LlamaBackend:
    config = ModelConfig(model_path=str(model_path), n_ctx=512, kv_cells=1024)
    return LlamaBackend.load(config, 4, lambda _: None)


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


def test_a_sequence_preempted_at_20_positions_equals_the_undisturbed_one(
    backend: LlamaBackend,
) -> None:
    sampling = SamplingParams(seed=7, repeat_penalty=1.3)
    run = EngineRun(backend, batch_tokens=16)
    run.run(generate(backend, 1, sampling))
    undisturbed = run.tokens(1)
    scheduler = run.engine.scheduler
    for position in range(1, 21):
        request = RequestNo(1 + position)
        preempted = []

        def preempt_at_position(
            request: RequestNo = request, position: int = position, done: list[int] = preempted
        ) -> None:
            found = scheduler.find(request)
            if not done and found is not None and found.n_generated == position:
                scheduler.preempt(found)
                done.append(position)

        run.run(generate(backend, request, sampling), between=preempt_at_position)
        assert preempted == [position]
        assert run.tokens(request) == undisturbed
