"""How many tokens a step and a forward pass may have."""

import pytest

from engine_worker.backend.llama.parameters import SMALL_MODEL_BYTES, Sizes, step_sizes
from gpufc.config import ModelConfig


@pytest.mark.parametrize(
    ("on_gpu", "model_bytes", "wanted", "n_sequences", "expected"),
    [
        (False, 1, None, 14, Sizes(128, 128)),
        (False, 1, None, 64, Sizes(128, 128)),
        (False, 1, None, 200, Sizes(264, 264)),
        (False, 1, 128, 200, Sizes(200, 200)),
        (True, 1, None, 4096, Sizes(6144, 2048)),
        (False, 1, 4096, 14, Sizes(4096, 1024)),
        (True, SMALL_MODEL_BYTES, None, 14, Sizes(4096, 2048)),
        (True, SMALL_MODEL_BYTES + 1, None, 14, Sizes(2048, 1024)),
        (True, SMALL_MODEL_BYTES + 1, 256, 14, Sizes(256, 256)),
    ],
)
def test_step_sizes(
    on_gpu: bool, model_bytes: int, wanted: int | None, n_sequences: int, expected: Sizes
) -> None:
    config = ModelConfig(batch_tokens=wanted, n_threads=2)
    assert step_sizes(config, n_sequences, on_gpu=on_gpu, model_bytes=model_bytes) == expected


@pytest.mark.parametrize(
    ("n_threads", "n_threads_batch", "n_tokens"),
    [
        (1, None, 128),
        (4, None, 128),
        (8, None, 256),
        (16, None, 512),
        (64, None, 512),
        (2, 16, 512),
    ],
)
def test_more_threads_compute_more_tokens_in_a_step(
    n_threads: int, n_threads_batch: int | None, n_tokens: int
) -> None:
    config = ModelConfig(n_threads=n_threads, n_threads_batch=n_threads_batch)
    assert step_sizes(config, 1, on_gpu=False, model_bytes=1) == Sizes(n_tokens, n_tokens)
