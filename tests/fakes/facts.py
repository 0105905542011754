"""The facts of a small made-up model, for tests of both processes."""

from typing import Any

import msgspec

from gpufc.facts import ModelFacts

_FACTS = ModelFacts(
    fingerprint="fake",
    architecture="fake",
    n_ctx=512,
    n_ctx_train=512,
    kv_cells=2048,
    n_sequences=4,
    batch_tokens=256,
    max_outputs=68,
    n_vocab=256,
    n_layers=2,
    n_gpu_layers=0,
    n_params=1000,
    model_bytes=4000,
    unified=True,
    can_cut=True,
    chat_template=None,
    bos_text="",
    eos_text="",
)


def model_facts(**changes: Any) -> ModelFacts:
    """Facts that differ from the made-up ones in these fields."""
    return msgspec.structs.replace(_FACTS, **changes)
