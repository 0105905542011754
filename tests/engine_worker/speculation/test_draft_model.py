"""A draft model computes whole batches, follows accepted tokens, and can be given up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.vocabulary import N_VOCAB, tokenize
from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.backend.port import Backend, Batch, LoadProgress
from engine_worker.engine import loading
from engine_worker.speculation import draft_model
from engine_worker.speculation.draft_model import DraftModel
from engine_worker.speculation.drafter import DraftRequest
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import BackendKind, KvUnified, ModelConfig, Speculation
from gpufc.errors import ModelLoadError
from gpufc.ids import RequestNo
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.text.sequences import spec


class CountingFake(FakeBackend):
    """Remembers its batches."""

    def __init__(self, config: ModelConfig, n_sequences: int) -> None:
        super().__init__(config, n_sequences)
        self.batches: list[Batch] = []

    def begin(self, batch: Batch) -> None:
        super().begin(batch)
        self.batches.append(batch)


def fake(n_sequences: int = 4, **given: Any) -> CountingFake:
    config = {"backend": BackendKind.FAKE, "n_ctx": 512, "kv_unified": KvUnified.FALSE, **given}
    return CountingFake(ModelConfig(**config), n_sequences)


def prompt(text: str) -> tuple[int, ...]:
    return tuple(tokenize(text, add_special=True))


def drafts(model: DraftModel, *requests: tuple[int, tuple[int, ...], int]) -> list[list[int]]:
    asked = [DraftRequest(RequestNo(key), list(tokens), n, n) for key, tokens, n in requests]
    return [draft.tokens for draft in model.draft_all(asked)]


def test_drafts_are_the_greedy_tokens_of_the_draft_model() -> None:
    words = prompt("hello")
    assert drafts(DraftModel(fake()), (1, words, 5)) == [expected_tokens(words, 5)]


def test_all_sequences_are_computed_in_one_batch_for_each_position() -> None:
    backend = fake()
    found = drafts(DraftModel(backend), (1, prompt("one"), 3), (2, prompt("two"), 2))
    assert [len(draft) for draft in found] == [3, 2]
    assert [len(set(batch.sequences)) for batch in backend.batches] == [2, 2, 1]


def test_after_a_right_draft_only_new_tokens_are_computed() -> None:
    backend, words = fake(), prompt("hello")
    model = DraftModel(backend)
    (draft,) = drafts(model, (1, words, 4))
    backend.batches.clear()
    said = expected_tokens(words, 9)
    assert drafts(model, (1, (*words, *said[:5]), 4)) == [said[5:]]
    assert draft == said[:4]
    assert len(backend.batches[0].tokens) == 2


def test_cells_of_rejected_tokens_are_removed() -> None:
    backend, words = fake(), prompt("hello")
    model = DraftModel(backend)
    drafts(model, (1, words, 4))
    other = (*words, *expected_tokens(words, 2), 65)
    assert drafts(model, (1, other, 4)) == drafts(DraftModel(fake()), (1, other, 4))


def test_a_long_prompt_is_computed_in_pieces_and_drafted_for_after_the_last() -> None:
    words = prompt("x" * 300)
    model = DraftModel(fake(batch_tokens=128))
    assert drafts(model, (1, words, 4)) == [[]]
    assert drafts(model, (1, words, 4)) == [[]]
    assert drafts(model, (1, words, 4)) == [expected_tokens(words, 4)]


def test_no_slot_no_draft_until_one_is_free() -> None:
    model, words = DraftModel(fake(n_sequences=1)), prompt("hello")
    assert drafts(model, (1, words, 2), (2, words, 2))[1] == []
    model.forget(RequestNo(1))
    assert drafts(model, (2, words, 2)) == [expected_tokens(words, 2)]


def test_a_sequence_beyond_the_draft_models_context_gets_no_drafts() -> None:
    model, words = DraftModel(fake(n_ctx=32)), prompt("x" * 29)
    assert len(drafts(model, (1, words, 8))[0]) == 32 - len(words)
    assert drafts(model, (1, prompt("x" * 40), 8)) == [[]]


def test_without_cells_only_the_longest_sequence_loses_its_drafts() -> None:
    backend = fake(kv_unified=KvUnified.TRUE, kv_cells=64)
    model, short, long = DraftModel(backend), prompt("short"), prompt("x" * 56)
    drafts(model, (1, short, 8), (2, long, 8))
    found = drafts(model, (1, short, 8), (2, long, 8))
    assert found == [expected_tokens(short, 8), []]
    model.forget(RequestNo(1))
    model.forget(RequestNo(2))
    assert backend.n_cells_used == 0


def test_the_cost_of_a_position_is_measured() -> None:
    model = DraftModel(fake(fake_script="step_ms=2"))
    drafts(model, (1, prompt("hello"), 4))
    assert model.position_s is not None
    assert model.position_s >= 0.002


def test_an_engine_gives_the_same_tokens_in_fewer_steps() -> None:
    target, model = fake(6), DraftModel(fake(6))
    run = EngineRun(target, drafter=model)
    run.engine._reporter._costs.seconds = lambda n_tokens, _: 1.0 + n_tokens * 1e-6  # type: ignore[method-assign]
    prompts = {n: prompt(f"request {n}") for n in range(1, 6)}
    run.run(*(spec(n, words, max_tokens=64) for n, words in prompts.items()))
    for n, words in prompts.items():
        assert run.tokens(n) == expected_tokens(words, 64)
    assert len(target.batches) < 5 * 64 / 8
    assert model._backend.n_cells_used == 0  # type: ignore[attr-defined]


class OtherVocabulary(FakeBackend):
    def spelling(self, token: int) -> bytes:
        return b"?" if token == N_VOCAB - 1 else super().spelling(token)


def test_another_vocabulary_is_refused_in_one_line() -> None:
    config = ModelConfig(backend=BackendKind.FAKE)
    draft_model.require_same_vocabulary(FakeBackend(config, 1), FakeBackend(config, 1))
    with pytest.raises(ModelLoadError, match="must have the same vocabulary"):
        draft_model.require_same_vocabulary(FakeBackend(config, 1), OtherVocabulary(config, 1))


def load_fake(config: ModelConfig, n_sequences: int, on_progress: LoadProgress) -> Backend:
    on_progress(1.0)
    return FakeBackend(config, n_sequences)


@pytest.mark.parametrize(
    ("speculation", "drafter"),
    [
        (Speculation.NONE, type(None)),
        (Speculation.NGRAM, PromptLookup),
        (Speculation.DRAFT, DraftModel),
    ],
)
def test_the_configured_drafter_is_loaded(speculation: Speculation, drafter: type) -> None:
    config = ModelConfig(
        backend=BackendKind.FAKE, speculation=speculation, draft_model_path="small.gguf"
    )
    progress: list[float] = []
    backend, found = loading.load(config, 3, load_fake, progress.append)
    assert backend.facts.n_sequences == 3 + config.cached_sequences
    assert isinstance(found, drafter)
    assert progress == [1.0]


def test_both_models_of_a_process_know_that_there_are_two() -> None:
    """Passes of neither are computed beside the engine thread then (`Loader`)."""
    asked: list[ModelConfig] = []

    def note(config: ModelConfig, n_sequences: int, on_progress: LoadProgress) -> Backend:
        asked.append(config)
        return load_fake(config, n_sequences, on_progress)

    config = ModelConfig(
        backend=BackendKind.FAKE, speculation=Speculation.DRAFT, draft_model_path="small.gguf"
    )
    loading.load(config, 3, note, lambda _: None)
    assert {str(one.model_path) for one in asked} == {"None", "small.gguf"}
    assert {one.speculation for one in asked} == {Speculation.DRAFT}


def test_a_draft_model_that_is_not_named_is_a_load_error() -> None:
    config = ModelConfig(backend=BackendKind.FAKE, speculation=Speculation.DRAFT)
    with pytest.raises(ModelLoadError, match="draft_model_path"):
        loading.load(config, 3, load_fake, lambda _: None)


@pytest.mark.model
def test_a_model_that_drafts_for_itself_is_nearly_always_right(model_path: Path) -> None:
    """Not always right: kernels for several tokens round differently from those for one."""
    config = ModelConfig(
        model_path=str(model_path),
        draft_model_path=str(model_path),
        speculation=Speculation.DRAFT,
        n_ctx=256,
        n_threads=1,
        cached_sequences=0,
    )
    target, drafter = loading.load(config, 2, LlamaBackend.load, lambda _: None)
    assert isinstance(drafter, DraftModel)
    try:
        n_drafted, n_right = _self_drafted(target, drafter, n_tokens=64)
    finally:
        drafter.close()
        target.close()
    assert n_drafted >= 64
    assert n_right >= 0.9 * n_drafted


def _self_drafted(target: Backend, drafter: DraftModel, n_tokens: int) -> tuple[int, int]:
    """(drafted, right) tokens while the target decodes two prompts greedily, in turn."""
    n_drafted = n_right = 0
    for key, text in enumerate(("Once upon a time", "The three laws of motion are")):
        tokens = target.tokenize(text, add_special=True, parse_special=False)
        n_computed = 0
        for _ in range(n_tokens // 4):
            (draft,) = drafter.draft_all([DraftRequest(RequestNo(key), tokens, 4, 4)])
            new = [*tokens[n_computed:], *draft.tokens]
            places = list(range(n_computed, n_computed + len(new)))
            n_outputs = len(draft.tokens) + 1
            outputs = [False] * (len(new) - n_outputs) + [True] * n_outputs
            target.begin(Batch(new, places, [key] * len(new), outputs))
            chosen = np.argmax(target.logits(), axis=1).tolist()
            right = _common(chosen, draft.tokens)
            n_drafted, n_right = n_drafted + len(draft.tokens), n_right + right
            n_computed = len(tokens) + right
            tokens = [*tokens, *chosen[: right + 1]]
            target.remove(key, n_computed)
        drafter.forget(RequestNo(key))
    return n_drafted, n_right


def _common(left: list[int], right: list[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(left), len(right)))
