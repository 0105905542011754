"""A lexer's fuel: masks renew it before checks and replays with new states use it up."""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from engine_worker.backend.fake import backend as fake
from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import GENERATED, N_VOCAB, State
from engine_worker.backend.port import Logits
from engine_worker.constraints import llg
from engine_worker.constraints.compiler import Compiler
from engine_worker.constraints.guide import Guide
from engine_worker.constraints.llg import MAX_NEW_BYTES, MaskThreads
from gpufc.config import BackendKind, ModelConfig
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.protocol import Generate, Refused
from tests.engine_worker.constraints.guided_requests import guided
from tests.engine_worker.constraints.matchers import TOKENIZER, matcher, schema
from tests.engine_worker.engine.engine_runs import EngineRun

LONG = Constraint(ConstraintKind.REGEX, "(a|b)*a(a|b){300}c")
"""Each text of `a` and `b` has states of its own, and they are dear."""
TEXT = schema({"type": "string", "pattern": "a.{100,200}b"})


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    made = Compiler(FakeBackend(ModelConfig(backend=BackendKind.FAKE), 1))
    made.compile(LONG)
    yield made
    made.close()


def letters(seed: int, number: int, of: str = "ab") -> list[int]:
    choice = random.Random(seed)
    return [ord(choice.choice(of)) for _ in range(number)]


def babble(state: State, *, is_nan: bool) -> Logits:
    """Random rows, in which `a` and `b` are likely."""
    row = np.random.default_rng(state.digest).normal(0, 1.5, N_VOCAB).astype(np.float32)
    row[[GENERATED + letter for letter in b"ab"]] += 30.0
    return row


def asked(number: int) -> Generate:
    return guided(number, LONG, prompt=f"letters {number}", max_tokens=900)


@pytest.mark.parametrize("n_streams", [2, 5])
def test_answers_that_are_rarely_refused_go_on_twice_on_one_compiler(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch, n_streams: int
) -> None:
    monkeypatch.setattr(fake, "_row", babble)
    backend = FakeBackend(ModelConfig(backend=BackendKind.FAKE, n_ctx=2048), 8)
    run = EngineRun(backend, max_running=6, batch_tokens=128)
    run.engine._guide = compiler.guide
    for first in (1, 11):
        requests = [asked(first + stream) for stream in range(n_streams)]
        run.run(*requests)
        assert not any(isinstance(message, Refused) for message in run.messages)
        assert [len(run.tokens(one.request)) for one in requests] == [900] * n_streams
    assert compiler.is_compiled(LONG)


def test_texts_of_one_lexer_are_checked_without_a_limit() -> None:
    lane = matcher(TEXT)
    begun = lane.copy()
    assert begun.consume(b'"') == 1
    begun.mask()  # the fuel of compiling, which is more, ends here
    for seed in range(20):
        found = lane.copy()
        for token in [*b'"', *letters(seed, 300, of="ac"), *b'b"']:
            assert found.allows(token), (seed, found.error)
            assert found.consume((token,)) == 1, (seed, found.error)
        assert found.is_accepting
    assert not lane.lexer.is_broken


@pytest.mark.parametrize("forced", [b"", b"the beginning, which is forced: " * 8])
def test_a_warm_lexer_reads_a_long_replay(forced: bytes) -> None:
    lane = matcher(Constraint(ConstraintKind.REGEX, forced.decode() + LONG.text))
    lane.copy().mask()
    for seed in range(3):
        found = Guide(lane.copy(), TOKENIZER.n_words)
        known = [*forced, *letters(seed, 1_000)]
        assert found.read(known)
        assert not found.read([*letters(seed, 100), ord("x")])
    assert not lane.lexer.is_broken


def test_a_replay_in_pieces_reads_up_to_the_first_token_that_is_not_allowed() -> None:
    known = letters(1, 500)
    known[333] = ord("x")
    assert matcher(LONG).copy().consume(known) == 333


def test_a_token_that_is_not_read_for_want_of_fuel_marks_the_lexer_as_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llg, "MAX_NEW_BYTES", 10**9)
    lane = matcher(LONG)
    lane.copy().mask()
    guide = Guide(lane.copy(), TOKENIZER.n_words)
    assert not all(guide.read((token,)) for token in letters(1, 1_000))
    assert lane.lexer.is_broken


def test_a_token_that_the_grammar_does_not_allow_breaks_no_lexer() -> None:
    lane = matcher(LONG)
    assert not Guide(lane.copy(), TOKENIZER.n_words).read(b"x")
    assert not lane.lexer.is_broken


def test_masks_of_any_copy_and_of_threads_renew_the_fuel_but_not_that_of_a_forced_token() -> None:
    lane = matcher(Constraint(ConstraintKind.REGEX, "start[a-z]{9}"))
    choosing = lane.copy()
    assert choosing.consume(b"start") == 5
    lexer = lane.lexer
    lexer.n_new_bytes = MAX_NEW_BYTES
    lane.copy().mask()
    assert lexer.is_due
    choosing.mask()
    assert not lexer.is_due
    lexer.n_new_bytes = MAX_NEW_BYTES
    words = np.zeros((1, TOKENIZER.n_words), np.int32)
    MaskThreads(1).fill([(choosing.copy(), 0)], words)
    assert not lexer.is_due
