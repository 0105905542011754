"""The disposable process and the compiler: refusals with their field, grammars compiled once."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import psutil
import pytest

from engine_worker import disposable
from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.constraints import compiler as compilers
from engine_worker.constraints.compiler import Compiler
from engine_worker.constraints.trial import Trial, Tried
from gpufc.config import BackendKind, ModelConfig
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import EngineUnavailable, InvalidGrammar
from tests.engine_worker.constraints.matchers import schema

OVERFLOWING = Constraint(
    ConstraintKind.LARK,
    "start: r0\n" + "".join(f"r{n}: r{n + 1}\n" for n in range(4500)) + 'r4500: "a"\n',
)
"""A chain of rules that overflows llguidance's stack."""
SLOW = Constraint(
    ConstraintKind.GBNF,
    "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1}\n" for n in range(3500)) + 'r3500 ::= "a"\n',
)
"""A chain of rules that is compiled in a time that grows with its square."""
GOOD = Constraint(ConstraintKind.REGEX, "[ab]+", "guided_regex")


@pytest.fixture
def trial() -> Iterator[Trial]:
    made = Trial()
    yield made
    made.close()


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    made = Compiler(FakeBackend(ModelConfig(backend=BackendKind.FAKE), 1))
    yield made
    made.close()


def test_a_grammar_that_ends_its_process_is_refused_and_the_next_one_compiles(trial: Trial) -> None:
    with pytest.raises(InvalidGrammar):
        trial.grammar(OVERFLOWING)
    assert trial.grammar(GOOD)


def test_a_bomb_ends_a_copy_alone_so_that_the_next_one_waits_for_no_start(trial: Trial) -> None:
    trial.start()
    assert trial._child is not None
    pid = trial._child.pid
    for bomb in (OVERFLOWING, SLOW, OVERFLOWING):
        # a fast machine compiles the slow one, and a busy one cannot tell
        with contextlib.suppress(InvalidGrammar, EngineUnavailable):
            trial.grammar(bomb)
    assert trial.grammar(GOOD)
    assert trial._child.pid == pid
    assert psutil.Process(pid).children() == []


def test_a_process_that_does_not_answer_is_logged_as_such(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def silent(*_: object) -> bytes:
        raise TimeoutError

    trial.start()
    monkeypatch.setattr(trial._child, "call", silent)
    with pytest.raises(InvalidGrammar):
        trial.grammar(GOOD)
    assert "it does not answer" in caplog.text


WRITES = """
import os
from engine_worker import disposable

def work():
    try:
        os.write(1, b"an answer to another one's constraint")
    except OSError:
        return b"it cannot"
    return b"it can"

print(disposable.forked(work, 60.0).decode())
"""


COPIES = """
import time
from engine_worker import disposable

try:
    disposable.forked(lambda: time.sleep(60), 0.5)
except disposable.Starved:
    print("starved")
"""


def test_a_copy_that_had_no_processor_is_told_from_one_that_needs_too_long() -> None:
    said = subprocess.run([sys.executable, "-c", COPIES], capture_output=True, timeout=60)
    assert said.stdout == b"starved\n"
    assert disposable.is_starved(cpu_s=0.2, timeout_s=0.5)
    assert not disposable.is_starved(cpu_s=0.4, timeout_s=0.5)


def test_a_starved_copy_is_no_fault_of_the_grammar(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.start()
    answer = msgspec.msgpack.encode(Tried(is_starved=True))
    monkeypatch.setattr(trial._child, "call", lambda *_: answer)
    with pytest.raises(EngineUnavailable, match="too busy"):
        trial.grammar(GOOD)


def test_a_copy_cannot_write_into_the_pipe_of_answers() -> None:
    said = subprocess.run([sys.executable, "-c", WRITES], capture_output=True, timeout=60)
    assert said.stdout == b"it cannot\n"


def test_values_of_wrong_types_are_refused(trial: Trial) -> None:
    with pytest.raises(InvalidGrammar, match="malformed"):
        trial.grammar(schema({"oneOf": [{"required": 5}, {"type": {}}], "not": {"required": 5}}))


def test_a_refusal_names_the_clients_field(compiler: Compiler) -> None:
    with pytest.raises(InvalidGrammar, match="uniqueItems") as refusal:
        compiler.compile(schema({"type": "array", "uniqueItems": True}))
    assert refusal.value.param == "json_schema"


def test_a_grammar_is_compiled_once_whatever_field_it_came_in(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler.compile(GOOD)
    monkeypatch.setattr(compiler, "_trial", None)  # no further trial
    other = Constraint(GOOD.kind, GOOD.text, "regex")
    assert compiler.is_compiled(other)
    compiler.compile(other)
    first, second = compiler.guide(GOOD), compiler.guide(other)
    assert first.masks(())[0] is not None
    assert second.masks(())[0] is not None


def test_old_grammars_make_room_for_new_ones(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilers, "MAX_KEPT", 2)
    many = [Constraint(ConstraintKind.REGEX, f"a{n}") for n in range(3)]
    for constraint in many:
        compiler.compile(constraint)
    assert [compiler.is_compiled(constraint) for constraint in many] == [False, True, True]
