"""The backend over a model file, with a small context."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.backend.port import Batch
from gpufc.config import ModelConfig
from gpufc.errors import ModelLoadError

N_CTX = 256


def load(path: Path, n_sequences: int = 4, **config: Any) -> LlamaBackend:
    given = {"n_ctx": N_CTX, "kv_cells": 512, "batch_tokens": 256, "n_threads": 1, **config}
    wanted = msgspec.convert({"model_path": str(path), **given}, ModelConfig)
    return LlamaBackend.load(wanted, n_sequences, lambda _: None)


def refusal(path: Path, **config: Any) -> str:
    """The one line of a load that must fail."""
    with pytest.raises(ModelLoadError) as caught:
        load(path, **config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tokens_of(backend: LlamaBackend, words: str) -> list[int]:
    return backend.tokenize(words, add_special=True, parse_special=True)


def feed(tokens: list[int], sequence: int = 0, start: int = 0, wanted: int = 1) -> Batch:
    n_tokens = len(tokens)
    return Batch(
        tokens=tokens,
        positions=list(range(start, start + n_tokens)),
        sequences=[sequence] * n_tokens,
        outputs=[place >= n_tokens - wanted for place in range(n_tokens)],
    )


def joined(*batches: Batch) -> Batch:
    return Batch(
        tokens=[token for batch in batches for token in batch.tokens],
        positions=[position for batch in batches for position in batch.positions],
        sequences=[sequence for batch in batches for sequence in batch.sequences],
        outputs=[wanted for batch in batches for wanted in batch.outputs],
    )
