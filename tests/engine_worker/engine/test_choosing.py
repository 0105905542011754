"""Guided answers whose tokens are drawn freely and checked: the same answers in every situation.

The model of these tests babbles: its rows are random numbers that depend on all tokens before, so
that guides refuse some free choices and allow others.
"""

import json
from collections.abc import Iterator
from collections.abc import Sequence as Many
from typing import Any

import msgspec
import numpy as np
import pytest

from engine_worker.backend.fake import backend as fake
from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import ENDS, GENERATED, N_VOCAB, State
from engine_worker.backend.port import Logits
from engine_worker.constraints import llg
from engine_worker.constraints.compiler import Compiler
from engine_worker.constraints.step_masks import StepMasks
from engine_worker.engine import choosing, loop
from engine_worker.engine.choosing import Choosing
from engine_worker.sampling.batch import Pick
from engine_worker.speculation.drafter import Draft, DraftRequest
from engine_worker.text.sequence import Sequence
from gpufc.config import BackendKind, KvUnified, ModelConfig, Replay
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.ids import RequestNo
from gpufc.protocol import FinishReason, Generate, LogprobsWanted
from gpufc.sampling import SamplingParams
from tests.engine_worker.constraints.guided_requests import guided
from tests.engine_worker.constraints.matchers import allows, schema
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.speculation.scripted_drafter import ScriptedDrafter

CONSTRAINTS = {
    "object": schema(
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 12},
                "years": {"type": "integer", "minimum": 1, "maximum": 99},
                "tags": {"type": "array", "items": {"enum": ["ab", "abc", "b"]}, "maxItems": 3},
            },
            "required": ["name", "years", "tags"],
            "additionalProperties": False,
        }
    ),
    "regex": Constraint(ConstraintKind.REGEX, "[A-Z][a-z]{2,5}( [a-m]{2,5}){3}"),
    "choice": Constraint(ConstraintKind.CHOICE, '["one", "once", "two"]'),
    "lark": Constraint(ConstraintKind.LARK, 'start: word (" " word)~2\nword: /[a-z]{1,6}/'),
    "gbnf": Constraint(ConstraintKind.GBNF, 'root ::= "<" [a-z]+ ">" [0-9]{4}'),
}
GREEDY = {"temperature": 0.0}


def babble(state: State, *, is_nan: bool) -> Logits:
    """A row of a model that often writes letters, digits and what JSON is made of."""
    row = np.random.default_rng(state.digest).normal(0.0, 1.5, N_VOCAB).astype(np.float32)
    row[[GENERATED + byte for byte in b'abcdefghijklm nopqrstuvwxyz0123456789"}], <>AZ']] += 4.0
    row[sorted(ENDS)] += 2.0
    return row


@pytest.fixture(autouse=True)
def babbling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "_row", babble)


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    made = Compiler(FakeBackend(ModelConfig(backend=BackendKind.FAKE), 1))
    for constraint in CONSTRAINTS.values():
        made.compile(constraint)
    yield made
    made.close()


def engine(compiler: Compiler, *, on_a_device: bool = False, **options: Any) -> EngineRun:
    backend = FakeBackend(ModelConfig(backend=BackendKind.FAKE), 8)
    backend.facts = msgspec.structs.replace(backend.facts, asynchronous=on_a_device)
    run = EngineRun(backend, max_running=6, batch_tokens=128, **options)
    run.engine._guide = compiler.guide
    return run


def asked(number: int, kind: str, tokens: tuple[int, ...] = (), **fields: Any) -> Generate:
    sampling = {"seed": number, "top_k": 0, "top_p": 1.0, **fields.pop("sampling", {})}
    return guided(
        number,
        CONSTRAINTS[kind],
        prompt=f"answer {number}",
        sampling=SamplingParams(**sampling),
        tokens=tokens,
        max_tokens=120,
        **fields,
    )


def answers(run: EngineRun, requests: list[Generate]) -> list[list[int]]:
    run.run(*requests)
    return [run.tokens(request.request) for request in requests]


def many(**fields: Any) -> list[Generate]:
    return [
        asked(10 * at + n, kind, **fields) for at, kind in enumerate(CONSTRAINTS) for n in (1, 2, 3)
    ]


def test_steps_begin_ahead_of_guided_streams_with_the_same_answers(compiler: Compiler) -> None:
    requests = many()
    n_streams = len(requests)
    config = ModelConfig(
        backend=BackendKind.FAKE, kv_cells=512 * n_streams, kv_unified=KvUnified.FALSE
    )
    backend = FakeBackend(config, n_streams)
    backend.facts = msgspec.structs.replace(
        backend.facts, asynchronous=True, n_gpu_layers=backend.facts.n_layers
    )
    run = EngineRun(backend, max_running=n_streams, batch_tokens=256)
    run.engine._guide = compiler.guide
    n_ahead = 0

    def count() -> None:
        nonlocal n_ahead
        n_ahead += run.engine._ahead.began_at is not None

    run.run(*requests, between=count)
    assert n_ahead > 10
    usual = answers(engine(compiler), requests)
    assert [run.tokens(one.request) for one in requests] == usual


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each free choice was refused."""
    noted: list[bool] = []
    refuses = Pick.refuses

    def noting(self: Pick, token: int) -> bool:
        noted.append(refuses(self, token))
        return noted[-1]

    monkeypatch.setattr(Pick, "refuses", noting)
    return noted


@pytest.mark.parametrize("on_a_device", [True, False])
def test_every_answer_is_valid_and_some_choices_are_refused(
    compiler: Compiler, refused: list[bool], on_a_device: bool
) -> None:
    run = engine(compiler, on_a_device=on_a_device)
    requests = many()
    run.run(*requests)
    for request in requests:
        assert request.constraint is not None
        assert run.deltas(request.request)[-1].finish is FinishReason.STOP
        assert allows(request.constraint, run.text(request.request)), run.text(request.request)
    assert 0.1 < sum(refused) / len(refused) < 0.9


@pytest.mark.parametrize("on_a_device", [True, False])
def test_greedy_answers_are_those_within_masks(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch, refused: list[bool], on_a_device: bool
) -> None:
    requests = many(sampling=GREEDY)
    checked = answers(engine(compiler, on_a_device=on_a_device), requests)
    n_refused = len(refused)
    assert n_refused
    monkeypatch.setattr(Sequence, "draws_freely", False)
    assert answers(engine(compiler, on_a_device=on_a_device), requests) == checked
    assert len(refused) == n_refused


class Guesses(ScriptedDrafter):
    """Drafts the tokens of known answers, of which every third one is wrong."""

    def __init__(self, known: dict[RequestNo, list[int]]) -> None:
        super().__init__(assumed=0.9)
        self._known = known

    def draft_all(self, requests: Many[DraftRequest]) -> list[Draft]:
        self.asked.append([request.key for request in requests])
        return [Draft(self._draft(request)[: request.limit], 50) for request in requests]

    def _draft(self, request: DraftRequest) -> list[int]:
        at = len(request.tokens) - request.n_prompt
        right = self._known[request.key][at : at + 3]
        return [token + (at + place) % 3 // 2 for place, token in enumerate(right)]


def test_drafts_change_no_token(compiler: Compiler, refused: list[bool]) -> None:
    requests = many()
    expected = answers(engine(compiler), requests)
    known = {request.request: tokens for request, tokens in zip(requests, expected, strict=True)}
    drafter = Guesses(known)
    run = engine(compiler, drafter=drafter)
    run.fix_costs(1.0, 1e-6)
    del refused[:]
    assert answers(run, requests) == expected
    assert drafter.asked
    assert any(refused)


def test_when_a_mask_is_computed_changes_no_token(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = many()
    expected = answers(engine(compiler), requests)
    assert answers(engine(compiler, on_a_device=True), requests) == expected
    monkeypatch.setattr(loop, "ForeseenMasks", StepMasks)
    assert answers(engine(compiler, on_a_device=True), requests) == expected
    for most in (0, 10**9):  # a mask instead of each check, and of none
        monkeypatch.setattr(llg, "MAX_NEW_BYTES", most)
        assert answers(engine(compiler), requests) == expected
    single = engine(compiler)
    single.engine._max_jump = 0
    assert answers(single, requests) == expected


@pytest.mark.parametrize("after_sampling", [True, False])
def test_log_probabilities_change_no_token(compiler: Compiler, after_sampling: bool) -> None:
    wanted = LogprobsWanted(3, after_sampling=after_sampling)
    assert answers(engine(compiler), many(logprobs=wanted)) == answers(engine(compiler), many())


@pytest.mark.parametrize("replay", Replay)
@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_a_replay_at_any_token_ends_in_the_same_answer(
    compiler: Compiler, kind: str, replay: Replay
) -> None:
    (whole,) = answers(engine(compiler), [asked(1, kind, replay=replay)])
    for n_known in range(1, len(whole)):
        request = asked(1, kind, tuple(whole[:n_known]), replay=replay)
        on_a_device = n_known % 2 == 0
        (rest,) = answers(engine(compiler, on_a_device=on_a_device), [request])
        assert [*whole[:n_known], *rest] == whole, n_known


def test_masks_are_computed_of_refused_rows_only(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch, refused: list[bool]
) -> None:
    computed: list[int] = []
    compute = StepMasks.compute

    def noting(self: StepMasks, guides: list[Any]) -> Any:
        computed.append(len(guides))
        return compute(self, guides)

    monkeypatch.setattr(StepMasks, "compute", noting)
    monkeypatch.setattr(StepMasks, "_compute", lambda *_: pytest.fail("a mask ahead"))
    run = engine(compiler)
    run.run(*many())
    assert sum(computed) == sum(refused)


def test_a_step_without_guides_asks_no_row(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_rows: list[int] = []
    refused = choosing._refused

    def noting(given: Many[Pick], chosen: Many[Any]) -> dict[int, Pick]:
        asked_rows.append(len(given))
        return refused(given, chosen)

    monkeypatch.setattr(choosing, "_refused", noting)
    run = engine(compiler)
    run.run(msgspec.structs.replace(asked(1, "regex"), constraint=None))
    assert run.tokens(1)
    assert not asked_rows
    run.run(asked(2, "regex"), msgspec.structs.replace(asked(3, "regex"), constraint=None))
    assert 2 in asked_rows


def test_a_refused_token_is_not_read(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, ...]] = []
    choose = Choosing.choose

    def checked(self: Choosing, *arguments: Any) -> Any:
        n_read = len(read)
        chosen = choose(self, *arguments)
        assert len(read) == n_read
        return chosen

    def reading(self: Any, tokens: tuple[int, ...]) -> bool:
        read.append(tuple(tokens))
        assert consume(self, tokens)
        return True

    run = engine(compiler)
    guide_type = type(compiler.guide(CONSTRAINTS["object"]))
    consume = guide_type.read
    monkeypatch.setattr(guide_type, "read", reading)
    monkeypatch.setattr(Choosing, "choose", checked)
    run.run(asked(1, "object"))
    assert [token for tokens in read for token in tokens] == run.tokens(1)
    assert list(json.loads(run.text(1))) == ["name", "years", "tags"]
