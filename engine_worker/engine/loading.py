"""Loads the model and, if configured, its drafter."""

import logging
from collections.abc import Callable

from engine_worker.backend.port import MAX_SEQUENCES, Backend, LoadProgress
from engine_worker.speculation import draft_model
from engine_worker.speculation.draft_model import DraftModel
from engine_worker.speculation.drafter import Drafter
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import ModelConfig, Speculation

logger = logging.getLogger(__name__)

LoadBackend = Callable[[ModelConfig, int, LoadProgress], Backend]
"""Configuration, number of KV slots, progress. Raises `ModelLoadError`."""


def load(
    config: ModelConfig, n_running: int, load_backend: LoadBackend, on_progress: LoadProgress
) -> tuple[Backend, Drafter | None]:
    """The model, with slots for `n_running` sequences and cached prefixes, and its drafter.

    Blocks for seconds to minutes. Raises `ModelLoadError`; memory is then freed by the end of the
    process. A draft model is loaded first: the model's cells are fitted to the memory left.
    """

    def load_model() -> Backend:
        n_sequences = min(MAX_SEQUENCES, n_running + config.cached_sequences)
        return load_backend(config, n_sequences, on_progress)

    match config.speculation:
        case Speculation.NONE:
            return load_model(), None
        case Speculation.NGRAM:
            return load_model(), PromptLookup()
        case Speculation.DRAFT if not draft_model.serves(config):
            logger.warning("draft_model_not_loaded reason=the model cannot verify drafts")
            return load_model(), None
        case Speculation.DRAFT:
            draft = load_backend(
                draft_model.configuration(config), min(MAX_SEQUENCES, n_running), lambda _: None
            )
            draft_model.require_cuttable(draft)
            backend = load_model()
            draft_model.require_same_vocabulary(backend, draft)
            return backend, DraftModel(draft)
