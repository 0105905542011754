"""The backend over a model file, with a small context."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine_worker.backend.llama.backend import LlamaBackend
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
