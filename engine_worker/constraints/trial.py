"""Compiles a constraint in a process that may be killed.

    engine worker        python -m engine_worker.constraints.trial PARENT_PID
    Trial ── Task ──▶      └─ fork: grammar_of, compile with a vocabulary of bytes, first mask
          ◀─ Tried ──

A grammar that never ends, fills the memory or overflows the stack dies alone, in a copy of the
child. The child has everything loaded and stays, so that the next constraint need not wait for the
start of another one.
"""

import gc
import logging
import sys
import threading
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from engine_worker import disposable
from engine_worker.constraints.limits import check_constraint
from engine_worker.disposable import Child, ChildDied, Starved
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import EngineUnavailable, InvalidGrammar

if TYPE_CHECKING:
    from engine_worker.constraints.llg import Tokenizer

logger = logging.getLogger(__name__)

MEMORY_BYTES = 1 << 30
CPU_S = 1
"""For one constraint."""
FORMAT_CPU_S = 2
"""For the format of an answer, which has the schemas of all of an agent's tools."""
FORMAT_WALL_S = 2.2
"""A client waits no longer than 2.5 s for a refusal."""
WAIT_S = 0.5
"""Beyond its CPU time, for a constraint that is compiled."""
MARGIN_S = 0.5
"""Beyond that, for a child that has to end its copy."""
START_TIMEOUT_S = 15.0
"""Starting Python on a busy machine is not the grammar's fault."""

_TOO_LONG = "it takes too long to compile"
_TOO_MUCH = "it takes too much time or memory to compile"
_MODULE = "engine_worker.constraints.trial"
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
"""Libraries that the child loads start no threads of their own, which no copy would have."""
_encoder = msgspec.msgpack.Encoder()


class Task(Struct, frozen=True, array_like=True):
    """`control` are the model's control tokens among the markers of an answer's format."""

    constraint: Constraint
    control: tuple[str, ...] = ()


class Tried(Struct, frozen=True, array_like=True):
    """The grammar, or why there is none. `died`: how the copy that tried it ended. `is_starved`:
    the machine was too busy to tell."""

    grammar: str = ""
    refusal: str = ""
    died: str = ""
    is_starved: bool = False


_decoder = msgspec.msgpack.Decoder(Tried)


class Trial:
    """Has one child, which it starts again should it die. Any thread that lives as long as the
    process may call it; calls follow one another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._has_greeted = False

    def grammar(self, constraint: Constraint, control: tuple[str, ...] = ()) -> str:
        """The grammar of a constraint that has compiled once (`grammar_of`).

        Raises `InvalidGrammar`, or `EngineUnavailable` if the process does not start or the machine
        is too busy for it.
        """
        check_constraint(constraint)
        with self._lock:
            child = self._ready()
            try:
                task = _encoder.encode(Task(constraint, control))
                answer = child.call(task, _wall_s(constraint) + MARGIN_S)
                tried = _decoder.decode(answer)
            except (TimeoutError, ChildDied, msgspec.MsgspecError) as err:
                logger.warning("trial_process_died reason=%s", str(err) or "it does not answer")
                self._replace()
                raise InvalidGrammar(_TOO_MUCH) from None
        if tried.died:
            logger.warning("trial_died reason=%s", tried.died)
        if tried.refusal:
            raise InvalidGrammar(tried.refusal)
        if tried.is_starved:
            raise EngineUnavailable(
                "The machine is too busy to compile the grammar", retry_after_s=5.0
            )
        return tried.grammar

    def start(self) -> None:
        """Have a child that waits. Raises `EngineUnavailable`."""
        with self._lock:
            self._ready()

    def close(self) -> None:
        """Kill the child, if there is one, and reap it."""
        with self._lock:
            self._drop()

    def _ready(self) -> Child:
        if self._child is not None and self._child.is_alive and self._has_greeted:
            return self._child
        try:
            child = self._child
            if child is None or not child.is_alive:
                child = self._spawn()
            child.call(b"", START_TIMEOUT_S)
        except (ChildDied, TimeoutError) as err:
            logger.error("trial_process_failed reason=%s", err)
            self._drop()
            raise EngineUnavailable(
                "The process that compiles grammars does not start", retry_after_s=5.0
            ) from None
        self._has_greeted = True
        return child

    def _spawn(self) -> Child:
        """Start a child. Raises `ChildDied`."""
        self._drop()
        self._child = Child(_MODULE, environ=_ONE_THREAD)
        self._has_greeted = False
        return self._child

    def _replace(self) -> None:
        """Start the next child now, so that the next constraint need not wait for all of its
        start."""
        try:
            self._spawn()
        except ChildDied as err:
            logger.error("trial_process_failed reason=%s", err)

    def _drop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


def _cpu_s(constraint: Constraint) -> int:
    return FORMAT_CPU_S if constraint.kind is ConstraintKind.ANSWER else CPU_S


def _wall_s(constraint: Constraint) -> float:
    return FORMAT_WALL_S if constraint.kind is ConstraintKind.ANSWER else CPU_S + WAIT_S


# the child's side; llguidance is imported there only


def serve(parent: int) -> None:
    """The child: answer frames until stdin ends."""
    disposable.confine(parent, MEMORY_BYTES)
    from engine_worker.constraints import llg

    source, sink = sys.stdin.buffer, sys.stdout.buffer
    tokenizer = llg.trial_tokenizer()
    if disposable.read_message(source) is None:
        return
    disposable.answer(sink, b"")
    gc.freeze()  # pages of a copy stay shared
    decoder = msgspec.msgpack.Decoder(Task)
    while (frame := disposable.read_message(source)) is not None:
        disposable.answer(sink, _in_copy(decoder.decode(frame), tokenizer))


def _in_copy(task: Task, tokenizer: "Tokenizer") -> bytes:
    """What a copy of the child finds, encoded."""

    def work() -> bytes:
        disposable.allow_cpu(_cpu_s(task.constraint))
        return _encoder.encode(_tried(task, tokenizer))

    try:
        return disposable.forked(work, _wall_s(task.constraint))
    except TimeoutError:
        return _encoder.encode(Tried(refusal=_TOO_LONG))
    except Starved:
        return _encoder.encode(Tried(is_starved=True))
    except ChildDied as err:
        return _encoder.encode(Tried(refusal=_TOO_MUCH, died=str(err)))


def _tried(task: Task, tokenizer: "Tokenizer") -> Tried:
    """Compile a constraint. The format of an answer is tried a second time with loose schemas,
    where no client is promised more."""
    is_format = task.constraint.kind is ConstraintKind.ANSWER
    first = _compiled(task, tokenizer)
    if not (first.refusal and is_format):
        return first
    second = _compiled(task, tokenizer, loose=True)
    return first if second.refusal else second


def _compiled(task: Task, tokenizer: "Tokenizer", *, loose: bool = False) -> Tried:
    from engine_worker.constraints import llg
    from engine_worker.constraints.grammar import grammar_of

    try:
        grammar = grammar_of(task.constraint, task.control, loose=loose)
        completed = grammar
        if task.constraint.kind is ConstraintKind.ANSWER:
            completed = llg.with_tokens(grammar, llg.TRIAL_CONTROL[: len(task.control)])
        matcher = llg.Matcher(tokenizer, completed)
        matcher.mask()
        if matcher.consume(matcher.forced()):
            matcher.mask()  # the first choice, where some grammars meet their limit
    except InvalidGrammar as err:
        return Tried(refusal=err.message)
    except Exception as err:  # values of other types than the keywords have
        return Tried(refusal=f"it is malformed ({type(err).__name__})")
    return Tried(grammar, matcher.error)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
