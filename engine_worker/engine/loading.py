"""Loads the model and, if configured, its drafter."""

from collections.abc import Callable

from engine_worker.backend.port import MAX_SEQUENCES, Backend, LoadProgress
from engine_worker.speculation.draft_model import load_with_model
from engine_worker.speculation.drafter import Drafter, Loads, LoadWith
from engine_worker.speculation.prompt_lookup import load_with_lookup
from gpufc.config import ModelConfig, Speculation

LoadBackend = Callable[[ModelConfig, int, LoadProgress], Backend]
"""Configuration, number of KV slots, progress. Raises `ModelLoadError`."""

_DRAFTED: dict[Speculation, LoadWith] = {
    Speculation.NGRAM: load_with_lookup,
    Speculation.DRAFT: load_with_model,
}
"""The drafter of each kind of speculation. A kind that is not listed has none."""


def load(
    config: ModelConfig, n_running: int, load_backend: LoadBackend, on_progress: LoadProgress
) -> tuple[Backend, Drafter | None]:
    """The model, with slots for `n_running` sequences and cached prefixes, and its drafter.

    Blocks for seconds to minutes. Raises `ModelLoadError`; memory is then freed by the end of the
    process.
    """

    def model() -> Backend:
        n_sequences = min(MAX_SEQUENCES, n_running + config.cached_sequences)
        return load_backend(config, n_sequences, on_progress)

    def beside(other: ModelConfig) -> Backend:
        return load_backend(other, min(MAX_SEQUENCES, n_running), lambda _: None)

    load_with = _DRAFTED.get(config.speculation)
    return (model(), None) if load_with is None else load_with(config, Loads(model, beside))
