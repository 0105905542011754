"""A prefix is reused only where the backend still has the cells of its sliding window."""

import random

from gpufc.config import BackendKind, ModelConfig
from tests.engine_worker.kv.prefix_runs import PrefixRun


def test_prompts_with_common_prefixes_are_right_where_every_token_takes_a_passed_cell() -> None:
    config = ModelConfig(
        backend=BackendKind.FAKE, n_ctx=400, kv_cells=4096, fake_script="window=24"
    )
    run = PrefixRun(config)
    numbers = random.Random(1)
    prompts = ["a conversation about foxes and hens, and about the weather " * 3]
    cached = []
    for at in range(1, 40):
        stem = numbers.choice(prompts[-3:])
        prompts.append(stem[: numbers.randrange(20, 160)] + f" and then {at}")
        cached.append(run.n_cached(prompts[-1]))
    assert any(cached)
    assert not all(cached)
