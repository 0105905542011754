"""Guided answers of the real model: valid, and the same text again when replayed exactly."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.constraints.compiler import Compiler
from gpufc.answer_format import AnswerFormat, Calls, Function, Span, constraint_of
from gpufc.config import ModelConfig, Replay
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import FinishReason, Generate
from gpufc.sampling import SamplingParams
from tests.engine_worker.engine.engine_runs import EngineRun

pytestmark = pytest.mark.model

CHAT = "<|im_start|>user\nDescribe a person.<|im_end|>\n<|im_start|>assistant\n"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
CONSTRAINT = Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(PERSON), "json_schema")
CALL = Span('<tool_call>\n{"name": "person", "arguments": ', "}\n</tool_call>")
FORCED = constraint_of(
    AnswerFormat(calls=Calls((Function("person", CALL, PERSON, strict=True),), most=1)), "tools"
)


@pytest.fixture(scope="module")
def backend(model_path: Path) -> Iterator[LlamaBackend]:
    config = ModelConfig(model_path=str(model_path), n_ctx=256, kv_cells=512, n_threads=1)
    loaded = LlamaBackend.load(config, 2, lambda _: None)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def compiler(backend: LlamaBackend) -> Iterator[Compiler]:
    made = Compiler(backend)
    made.compile(CONSTRAINT)
    made.compile(FORCED)
    yield made
    made.close()


def run(
    backend: LlamaBackend,
    compiler: Compiler,
    tokens: tuple[int, ...] = (),
    replay: Replay = Replay.FAST,
    constraint: Constraint = CONSTRAINT,
) -> EngineRun:
    """A run of one request, whose cells are forgotten afterwards."""
    made = EngineRun(backend, max_running=1, batch_tokens=64)
    made.engine._guide = compiler.guide
    prompt = backend.tokenize(CHAT, add_special=True, parse_special=True)
    made.run(
        Generate(
            Epoch(1),
            RequestNo(1),
            RequestId("r1"),
            choice=0,
            prompt_tokens=tuple(prompt),
            sampling=SamplingParams(seed=3, temperature=0.7),
            tokens=tokens,
            replay=replay,
            constraint=constraint,
        )
    )
    for slot in range(backend.facts.n_sequences):
        backend.remove(slot)
    return made


def is_person(text: str) -> bool:
    person = json.loads(text)
    return set(person) == {"name", "age"} and 1 <= person["age"] <= 99


def spelt(backend: LlamaBackend, tokens: list[int]) -> str:
    return b"".join(map(backend.piece, tokens)).decode()


def test_forced_tokens_save_steps_and_the_answer_is_valid(
    backend: LlamaBackend, compiler: Compiler
) -> None:
    found = run(backend, compiler)
    assert is_person(found.text(1))
    assert found.deltas(1)[-1].finish is FinishReason.STOP
    assert len(found.deltas(1)) < len(found.tokens(1))


def test_an_exact_replay_from_every_third_token_ends_in_the_same_answer(
    backend: LlamaBackend, compiler: Compiler
) -> None:
    whole = run(backend, compiler, replay=Replay.EXACT).tokens(1)
    for n_known in range(1, len(whole), 3):
        again = run(backend, compiler, tuple(whole[:n_known]), Replay.EXACT)
        assert [*whole[:n_known], *again.tokens(1)] == whole, n_known


def test_a_fast_replay_from_every_third_token_ends_in_a_valid_answer(
    backend: LlamaBackend, compiler: Compiler
) -> None:
    whole = run(backend, compiler).tokens(1)
    for n_known in range(1, len(whole), 3):
        again = run(backend, compiler, tuple(whole[:n_known]))
        assert is_person(spelt(backend, [*whole[:n_known], *again.tokens(1)])), n_known


def test_a_forced_call_is_the_same_after_an_exact_replay_from_every_seventh_token(
    backend: LlamaBackend, compiler: Compiler
) -> None:
    run_forced = partial(run, backend, compiler, replay=Replay.EXACT, constraint=FORCED)
    whole = run_forced().tokens(1)
    text = spelt(backend, whole)
    assert text.startswith(CALL.begin)
    assert is_person(text.removeprefix(CALL.begin).removesuffix(CALL.end))
    for n_known in range(1, len(whole), 7):
        again = run_forced(tokens=tuple(whole[:n_known]))
        assert [*whole[:n_known], *again.tokens(1)] == whole, n_known
