"""Embeddings beside generation, on the fake backend."""

import numpy as np
import pytest

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.embedder import expected_vector
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.prompts.embedding_inputs import Wanted
from gpufc.config import BackendKind, ModelConfig
from gpufc.errors import DecodeFailed, EngineUnavailable
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Attach, Cancel, Embedded, EngineFailed, EnginePhase, Refused, Step
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.text.sequences import spec


def run_of(script: str = "") -> EngineRun:
    config = ModelConfig(backend=BackendKind.FAKE, n_ctx=1024, fake_script=script)
    return EngineRun(FakeBackend.load(config, 6, lambda _: None))


def wanted(no: int, *texts: str, epoch: int = 1) -> Wanted:
    inputs = tuple(tuple(tokenize(text)) for text in texts)
    return Wanted(Epoch(epoch), RequestNo(no), inputs)


def answers(run: EngineRun) -> dict[int, list[np.ndarray]]:
    return {
        message.request: [np.frombuffer(one.vector, "<f4") for one in message.embeddings]
        for message in run.messages
        if isinstance(message, Embedded)
    }


def require_right(run: EngineRun, asked: Wanted) -> None:
    found = answers(run)[asked.request]
    for vector, tokens in zip(found, asked.inputs, strict=True):
        assert vector == pytest.approx(expected_vector(tokens), abs=1e-6)


def test_inputs_are_embedded_in_their_order_however_long_they_are() -> None:
    run, asked = run_of(), wanted(1, "one", "a longer one " * 20, "three")
    run.run(asked)
    require_right(run, asked)
    (message,) = run.messages
    assert isinstance(message, Embedded)
    assert [one.n_tokens for one in message.embeddings] == [3, 260, 5]


def test_generation_goes_on_beside_embeddings_and_both_are_right() -> None:
    run, asked = run_of(), wanted(1, *(f"input {n} " * 9 for n in range(8)))
    prompts = {no: tuple(tokenize(f"prompt {no}", add_special=True)) for no in (2, 3)}
    run.run(*(spec(no, words, max_tokens=40) for no, words in prompts.items()), asked)
    require_right(run, asked)
    for no, words in prompts.items():
        assert run.tokens(no) == expected_tokens(words, 40)
    kinds = [type(message) for message in run.messages]
    assert kinds.index(Embedded) > 10  # streams came first, token by token
    assert Step in kinds[:2]


def test_the_engine_s_record_shows_a_pass_before_it_begins() -> None:
    run = run_of()
    run.engine.inbox.put(wanted(1, "text"))
    run.engine.take_requests()
    before = run.engine.progress.step
    run.engine.run_embedder(None)
    record = run.engine.progress
    assert (record.phase, record.step_tokens) == (EnginePhase.PREFILL, 4)
    assert record.step > before


def test_a_cancelled_request_is_not_answered_and_leaves_nothing_behind() -> None:
    run, long, short = run_of(), wanted(1, "x" * 300), wanted(2, "short")
    run.engine.inbox.put(long)
    run.engine.take_requests()
    run.engine.run_embedder(None)
    run.run(Cancel(Epoch(1), RequestNo(1)), short)
    assert list(answers(run)) == [2]
    require_right(run, short)


def test_another_front_gets_no_answer_to_the_old_one_s_inputs() -> None:
    run, asked = run_of(), wanted(1, "new", epoch=2)
    run.run(wanted(1, "x" * 300), Attach(Epoch(1), Epoch(2), "", ""), asked)
    require_right(run, asked)
    assert [message.epoch for message in run.messages] == [2]


def test_a_vector_that_is_not_finite_is_refused() -> None:
    run, asked = run_of(), wanted(2, "fine")
    run.run(wanted(1, "fine", "[[nan@-1]]"), asked)
    refused = run.messages[0]
    assert isinstance(refused, Refused)
    assert (refused.request, refused.code) == (1, "internal_error")
    require_right(run, asked)


def test_a_lost_backend_is_reported_with_the_requests_of_the_fatal_pass() -> None:
    run = run_of()
    with pytest.raises(DecodeFailed):
        run.run(wanted(1, "fine"), wanted(2, "[[decode_error@-1]]"), wanted(3, "x" * 300))
    failed = run.messages[-1]
    assert isinstance(failed, EngineFailed)
    assert failed.requests == (1, 2, 3)


def test_a_lack_of_memory_refuses_one_request_and_the_next_one_tries_again() -> None:
    run = run_of()
    backend = run.engine._embedding._backend
    assert isinstance(backend, FakeBackend)
    made = backend.embedder

    def short() -> object:
        raise EngineUnavailable("no memory", retry_after_s=1.0)

    backend.embedder = short  # type: ignore[method-assign, assignment]
    run.run(wanted(1, "first"))
    backend.embedder = made  # type: ignore[method-assign]
    run.run(asked := wanted(2, "second"))
    refused = run.messages[0]
    assert isinstance(refused, Refused)
    assert refused.code == "engine_unavailable"
    require_right(run, asked)


@pytest.mark.parametrize("script", ["embeds=1", "ranks=1"])
def test_a_model_that_generates_nothing_refuses_sequences(script: str) -> None:
    run = run_of(script)
    run.run(spec(1, (1, 2, 3), max_tokens=3))
    (refused,) = run.messages
    assert isinstance(refused, Refused)
    assert "This model only" in refused.message


def test_a_reranker_s_results_are_scores() -> None:
    run = run_of("ranks=1")
    run.run(wanted(1, "a pair", "another"))
    scores = answers(run)[1]
    assert [len(score) for score in scores] == [1, 1]
    assert all(0 <= float(score[0]) <= 1 for score in scores)
