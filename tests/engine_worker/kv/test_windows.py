"""A prefix is reused only where the backend still has the cells of its sliding window."""

import random

from engine_worker.backend.fake.backend import FakeBackend, expected_text
from engine_worker.backend.fake.vocabulary import tokenize
from gpufc.config import BackendKind, ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate, Step
from gpufc.sampling import SamplingParams
from tests.engine_worker.engine.engine_runs import EngineRun


def test_prompts_with_common_prefixes_are_right_where_every_token_takes_a_passed_cell() -> None:
    """The fake raises where a sequence goes on without its window."""
    config = ModelConfig(
        backend=BackendKind.FAKE, n_ctx=400, kv_cells=4096, fake_script="window=24"
    )
    run = EngineRun(FakeBackend(config, 8), max_running=3)
    numbers = random.Random(1)
    prompts = ["a conversation about foxes and hens, and about the weather " * 3]
    cached = []
    for at in range(1, 40):
        stem = numbers.choice(prompts[-3:])
        prompts.append(stem[: numbers.randrange(20, 160)] + f" and then {at}")
        tokens = tuple(tokenize(prompts[-1], add_special=True, parse_special=True))
        run.run(
            Generate(
                Epoch(1),
                RequestNo(at),
                RequestId("windowed"),
                choice=0,
                prompt_tokens=tokens,
                sampling=SamplingParams(seed=1),
                max_tokens=9,
            )
        )
        assert run.text(at) == expected_text(list(tokens), 9)
        steps = (each for each in run.messages if isinstance(each, Step))
        cached.append([started.n_cached for step in steps for started in step.started][-1])
    assert any(cached)
    assert not all(cached)
