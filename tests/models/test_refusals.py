"""Models that cannot do what is asked of them are refused in one line."""

import logging

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.engine.loading import load
from gpufc.config import ModelConfig, Speculation
from gpufc.errors import ModelLoadError
from tests.models.making import made


def config(target: str, draft: str) -> ModelConfig:
    return ModelConfig(
        model_path=str(made(target)),
        draft_model_path=str(made(draft)),
        speculation=Speculation.DRAFT,
        n_ctx=256,
        n_threads=1,
    )


@pytest.mark.parametrize("name", ["bert", "embedding", "reranker"])
def test_a_model_that_generates_no_text_is_refused_as_draft_model(name: str) -> None:
    with pytest.raises(ModelLoadError, match=r"draft model .* generates no text"):
        load(config("llama", name), 1, LlamaBackend.load, lambda _: None)


def test_a_model_that_generates_no_text_is_loaded_without_its_draft() -> None:
    backend, drafter = load(config("bert", "llama"), 1, LlamaBackend.load, lambda _: None)
    backend.close()
    assert drafter is None


@pytest.mark.parametrize("name", ["mamba", "lfm2"])
def test_a_draft_model_that_cannot_be_cut_is_refused_at_load(name: str) -> None:
    with pytest.raises(ModelLoadError, match=f"draft model .{name}. is recurrent or hybrid"):
        load(config("llama", name), 1, LlamaBackend.load, lambda _: None)


def test_a_model_that_cannot_be_cut_is_loaded_without_its_draft(
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened: list[str | None] = []

    def load_backend(*arguments: object) -> LlamaBackend:
        settings, n_sequences, on_progress = arguments
        opened.append(settings.model_path)
        return LlamaBackend.load(settings, n_sequences, on_progress)

    with caplog.at_level(logging.WARNING):
        backend, drafter = load(config("lfm2", "llama"), 1, load_backend, lambda _: None)
    backend.close()
    assert (opened, drafter) == ([str(made("lfm2"))], None)
    assert "draft_model_not_loaded" in caplog.text
