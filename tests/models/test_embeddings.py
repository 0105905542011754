"""Embeddings and scores on llama.cpp, compared with a forward pass in numpy and with each other."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llama_cpp.llama_cpp as lc
import numpy as np
import pytest
from gguf import GGUFReader

from engine_worker.backend.embedder import Span, Vector
from engine_worker.backend.llama import embedder_loading
from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.backend.llama.embedder_loading import shape_beside
from engine_worker.backend.llama.quirks import NO_EMBEDDINGS
from engine_worker.backend.port import Batch
from engine_worker.embedding import vectors
from engine_worker.probe import model
from engine_worker.prompts.embedding_inputs import EmbeddingInputs
from engine_worker.prompts.tokenizer import Tokenizer
from gpufc.config import ModelConfig
from gpufc.errors import DecodeFailed, InvalidRequest
from gpufc.facts import Pooling
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Embed, PairPrompt, TextPrompt
from tests.models import bert
from tests.models.families import BERT, BERT_WORDS, FAMILIES
from tests.models.making import made
from tests.models.rare import RARE
from tests.models.runs import some_tokens

TEXTS = ["hello world", "the cat sat on the mat, and sitting? É!", "", "a" * 60]
EMBEDDING = sorted({*RARE} - NO_EMBEDDINGS)
WORDS = {word: number for number, word in enumerate(BERT_WORDS)}


@contextmanager
def loaded(name: str, n_ctx: int = 512) -> Iterator[LlamaBackend]:
    config = ModelConfig(model_path=str(made(name)), n_ctx=n_ctx, n_threads=1)
    backend = LlamaBackend.load(config, 2, lambda _: None)
    try:
        yield backend
    finally:
        backend.close()


def weights(name: str) -> dict[str, np.ndarray]:
    reader = GGUFReader(str(made(name)))
    return {tensor.name: tensor.data.astype(np.float32) for tensor in reader.tensors}


def inputs_of(backend: LlamaBackend) -> EmbeddingInputs:
    return EmbeddingInputs(backend.facts, Tokenizer(backend), backend.template("rerank"))


def alone(backend: LlamaBackend, tokens: Sequence[int]) -> Vector:
    (vector,) = backend.embedder().compute([Span(0, 0, tokens, True)])
    return vector


def of_length_one(vector: Vector) -> np.ndarray:
    return np.frombuffer(vectors.embedding(vector), "<f4")


@pytest.mark.parametrize(
    ("name", "pooling", "first_only"),
    [
        ("bert", Pooling.MEAN, False),
        ("bert-cls", Pooling.CLS, True),
        ("bert-plain", Pooling.MEAN, False),
    ],
)
def test_an_encoder_s_vectors_are_those_of_the_forward_pass(
    name: str, pooling: Pooling, first_only: bool
) -> None:
    known = weights(name)
    with loaded(name) as backend:
        facts = backend.facts
        assert (facts.generates, facts.pooling) == (False, pooling)
        assert (facts.embedding_size, facts.embedding_tokens) == (BERT.width, BERT.n_ctx)
        for text in TEXTS:
            tokens = inputs_of(backend).tokens(TextPrompt(text))
            assert list(tokens) == bert.tokens(text, WORDS)
            found = of_length_one(alone(backend, tokens))
            expected = bert.embedding(known, BERT, tokens, first_only=first_only)
            assert found @ expected >= 0.999
            assert found == pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("name", ["bert", "embedding", "llama", "lfm2", "mamba", *EMBEDDING])
def test_inputs_of_one_pass_get_the_vectors_that_they_get_alone(name: str) -> None:
    with loaded(name) as backend:
        batch = [[t % backend.facts.n_vocab for t in some_tokens(5 + 3 * n, n)] for n in range(6)]
        spans = [Span(at, 0, tokens, True) for at, tokens in enumerate(batch)]
        together = backend.embedder().compute(spans)
        for vector, tokens in zip(together, batch, strict=True):
            expected = of_length_one(alone(backend, tokens))
            assert of_length_one(vector) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", [*FAMILIES, *EMBEDDING, "embedding"])
def test_an_input_in_several_passes_gets_the_vector_that_it_gets_whole(name: str) -> None:
    tokens = some_tokens(50, 3)
    with loaded(name) as backend:
        embedder = backend.embedder()
        assert embedder.limits.may_split
        whole = alone(backend, tokens)
        assert embedder.compute([Span(1, 0, tokens[:20], False)]) == []
        assert embedder.compute([Span(1, 20, tokens[20:21], False)]) == []
        others, split = embedder.compute([Span(0, 0, [7, 8], True), Span(1, 21, tokens[21:], True)])
        assert of_length_one(split) == pytest.approx(of_length_one(whole), abs=1e-3)
        assert of_length_one(others) == pytest.approx(
            of_length_one(alone(backend, [7, 8])), abs=1e-3
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_vectors_beside_generation_are_the_same_without_logits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, ends = some_tokens(20, 8), list[bool]()
    callback = lc.ggml_backend_sched_eval_callback

    def watched(is_wanted: Callable[[int, bool, int | None], bool]) -> Any:
        def asked(tensor: int, is_asked: bool, given: int | None) -> bool:
            answer = is_wanted(tensor, is_asked, given)
            if not is_asked:
                ends.append(answer)
            return answer

        return callback(asked)

    monkeypatch.setattr(lc, "ggml_backend_sched_eval_callback", watched)
    with loaded(name) as backend:
        found = alone(backend, tokens)
    assert ends == [False]  # the graph ended at the vectors
    monkeypatch.setattr(embedder_loading, "end_at_vectors", lambda *_: None)
    with loaded(name) as backend:
        assert alone(backend, tokens) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(
    ("n_ctx", "cell_bytes", "expected"),
    [(512, 1, 512), (100_000, 1, 8192), (8192, 1 << 18, 4096), (8192, 1 << 30, 256)],
)
def test_the_longest_input_beside_generation_takes_little_memory(
    n_ctx: int, cell_bytes: int, expected: int
) -> None:
    assert shape_beside(n_ctx, 1000, cell_bytes).n_input_tokens == expected


def test_a_large_vocabulary_makes_passes_beside_generation_smaller() -> None:
    assert shape_beside(8192, 32_000, 1).n_tokens == 128
    assert shape_beside(8192, 262_144, 1).n_tokens == 64


def test_a_dropped_beginning_leaves_its_slot_empty() -> None:
    tokens = some_tokens(30, 4)
    with loaded("llama") as backend:
        embedder = backend.embedder()
        whole = alone(backend, tokens)
        embedder.compute([Span(0, 0, some_tokens(9, 5), False)])
        embedder.drop(0)
        assert alone(backend, tokens) == pytest.approx(whole, abs=1e-4)


def test_embeddings_leave_generation_as_it_was() -> None:
    tokens = some_tokens(20, 6)
    with loaded("llama") as backend:
        batch = Batch(tokens, list(range(20)), [0] * 20, [False] * 19 + [True])
        backend.begin(batch)
        before = backend.logits().copy()
        backend.remove(0)
        alone(backend, some_tokens(40, 7))
        backend.begin(batch)
        assert backend.logits() == pytest.approx(before)


@pytest.mark.parametrize("name", ["reranker", "bert-reranker"])
def test_a_reranker_scores_pairs_the_same_alone_and_together(name: str) -> None:
    pairs = [PairPrompt("the cat", text) for text in ("the cat sat", "hello world", "a")]
    with loaded(name) as backend:
        assert (backend.facts.pooling, backend.facts.embedding_size) == (Pooling.RANK, 0)
        batch = [inputs_of(backend).tokens(pair) for pair in pairs]
        spans = [Span(at, 0, tokens, True) for at, tokens in enumerate(batch)]
        scores = [_score(vector) for vector in backend.embedder().compute(spans)]
        assert scores == pytest.approx([_score(alone(backend, one)) for one in batch], abs=1e-3)
        assert all(0 < score < 1 for score in scores)
        assert len({round(score, 4) for score in scores}) == 3


def test_an_encoder_s_pair_has_one_separator_between_its_texts() -> None:
    cls, sep = WORDS["[CLS]"], WORDS["[SEP]"]
    with loaded("bert-reranker") as backend:
        tokens = inputs_of(backend).tokens(PairPrompt("hello", "world"))
    assert tokens == (cls, WORDS["hello"], sep, WORDS["world"], sep)


@pytest.mark.parametrize("name", sorted(NO_EMBEDDINGS))
def test_a_model_whose_vectors_would_end_the_process_embeds_nothing(name: str) -> None:
    with loaded(name) as backend:
        assert backend.facts.embedding_size == 0
        wanted = Embed(Epoch(1), RequestNo(1), (TextPrompt("a text"),))
        with pytest.raises(InvalidRequest, match="does not embed"):
            inputs_of(backend).require_possible(wanted)


def test_a_pass_that_llama_cpp_would_abort_on_is_refused_before() -> None:
    with loaded("bert") as backend, pytest.raises(DecodeFailed, match="at most 128"):
        alone(backend, [5] * 129)


def test_a_model_that_only_embeds_computes_no_batch() -> None:
    with loaded("bert") as backend, pytest.raises(DecodeFailed):
        backend.begin(Batch([5], [0], [0], [True]))


def test_the_probe_reports_what_a_model_is_for() -> None:
    assert model(made("bert"), ("f16", "f16"))["purpose"] == "embed"
    assert model(made("reranker"), ("f16", "f16"))["purpose"] == "rank"
    assert model(made("llama"), ("f16", "f16"))["purpose"] == "generate"


def _score(vector: Vector) -> float:
    return float(np.frombuffer(vectors.score(vector), "<f4")[0])
