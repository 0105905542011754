"""Guided sequences in the engine: valid answers, forced tokens in one pass, replay at any token."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import piece, tokenize
from engine_worker.constraints.compiler import Compiler
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import BackendKind, ModelConfig, Replay
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.protocol import FinishReason, Generate, LogprobsWanted, Refused
from tests.engine_worker.constraints.guided_requests import guided
from tests.engine_worker.constraints.matchers import allows, schema
from tests.engine_worker.engine.engine_runs import EngineRun

PERSON = schema(
    {
        "type": "object",
        "properties": {
            "first_name": {"type": "string", "maxLength": 6},
            "years": {"type": "integer", "minimum": 1, "maximum": 99},
            "is_member": {"type": "boolean"},
        },
        "required": ["first_name", "years", "is_member"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    made = Compiler(FakeBackend(ModelConfig(backend=BackendKind.FAKE), 1))
    made.compile(PERSON)
    yield made
    made.close()


def asked(
    request: int = 1,
    tokens: tuple[int, ...] = (),
    *,
    constraint: Constraint = PERSON,
    **fields: Any,
) -> Generate:
    return guided(request, constraint, prompt=f"person {request}", tokens=tokens, **fields)


def engine(compiler: Compiler, n: int = 4, *, drafts: bool = False) -> EngineRun:
    backend = FakeBackend(ModelConfig(backend=BackendKind.FAKE), n)
    run = EngineRun(backend, max_running=n, batch_tokens=128)
    if drafts:
        run = EngineRun(backend, max_running=n, batch_tokens=128, drafter=PromptLookup())
    run.engine._guide = compiler.guide
    return run


def test_every_answer_is_valid_and_ends_by_itself(compiler: Compiler) -> None:
    run = engine(compiler)
    requests = range(1, 9)
    run.run(*(asked(number) for number in requests))
    for number in requests:
        answer = json.loads(run.text(number))
        assert list(answer) == ["first_name", "years", "is_member"]
        assert allows(PERSON, run.text(number))
        assert run.deltas(number)[-1].finish is FinishReason.STOP


def test_forced_tokens_take_no_steps_of_their_own(compiler: Compiler) -> None:
    run = engine(compiler)
    run.run(asked())
    n_tokens, n_steps = len(run.tokens(1)), len(run.deltas(1))
    assert n_tokens >= 50
    assert n_steps < n_tokens / 2


def test_the_answer_is_the_same_where_forced_tokens_come_one_by_one(compiler: Compiler) -> None:
    fast, single = engine(compiler), engine(compiler)
    single.engine._max_jump = 0
    fast.run(asked())
    single.run(asked())
    assert len(single.deltas(1)) == len(single.tokens(1))
    assert single.tokens(1) == fast.tokens(1)


def test_drafts_change_no_token_of_a_guided_answer(compiler: Compiler) -> None:
    plain, drafted = engine(compiler), engine(compiler, drafts=True)
    drafted.fix_costs(1.0, 1e-6)
    plain.run(asked(2), asked(3))
    drafted.run(asked(2), asked(3))
    for number in (2, 3):
        assert drafted.tokens(number) == plain.tokens(number)


@pytest.mark.parametrize("replay", [Replay.FAST, Replay.EXACT])
def test_a_replay_at_any_token_ends_in_the_same_answer(compiler: Compiler, replay: Replay) -> None:
    first = engine(compiler)
    first.run(asked(replay=replay))
    tokens = first.tokens(1)
    for n_known in range(1, len(tokens)):
        again = engine(compiler)
        again.run(asked(tokens=tuple(tokens[:n_known]), replay=replay))
        assert [*tokens[:n_known], *again.tokens(1)] == tokens, n_known
        known = b"".join(map(piece, tokens[:n_known])).decode()
        assert known + again.text(1) == first.text(1)


def test_tokens_that_break_the_constraint_refuse_their_sequence_alone(compiler: Compiler) -> None:
    run = engine(compiler)
    run.run(asked(1, tokens=tuple(tokenize("[1"))), asked(2))
    (refused,) = [message for message in run.messages if isinstance(message, Refused)]
    assert (refused.request, refused.code) == (1, "invalid_grammar")
    assert json.loads(run.text(2))


def test_an_answer_that_is_forced_whole_needs_no_step(compiler: Compiler) -> None:
    only = Constraint(ConstraintKind.CHOICE, '["yes"]')
    compiler.compile(only)
    run = engine(compiler)
    run.run(asked(constraint=only))
    assert run.text(1) == "yes"
    assert run.deltas(1)[-1].finish is FinishReason.STOP


def test_max_tokens_ends_a_forced_run(compiler: Compiler) -> None:
    run = engine(compiler)
    run.run(asked(max_tokens=5))
    assert len(run.tokens(1)) == 5
    assert run.deltas(1)[-1].finish is FinishReason.LENGTH


def test_a_stop_string_ends_a_forced_run(compiler: Compiler) -> None:
    run = engine(compiler)
    run.run(asked(stop=('years": ',)))
    assert run.text(1).endswith(', "')
    assert run.deltas(1)[-1].finish is FinishReason.STOP


def test_forced_tokens_are_computed_one_by_one_where_their_log_probabilities_are_wanted(
    compiler: Compiler,
) -> None:
    run = engine(compiler)
    run.run(asked(logprobs=LogprobsWanted(1)))
    deltas = run.deltas(1)
    assert all(len(delta.logprobs) == len(delta.tokens) for delta in deltas)
    assert [len(delta.tokens) for delta in deltas if delta.tokens] == [1] * len(run.tokens(1))
    plain = engine(compiler)
    plain.run(asked())
    assert plain.tokens(1) == run.tokens(1)
    assert len(plain.deltas(1)) < len(deltas)
