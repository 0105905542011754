"""A sequence that begins anew at any position, with the tokens and the state of its log, goes on as
the first worker would have: with every sampler."""

import numpy as np
import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import GENERATED, N_VOCAB
from engine_worker.backend.port import Batch, Logits
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import BackendKind, ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Delta, Generate, SamplerState
from gpufc.sampling import SamplingParams
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.sampling.kinds import RARE

N_TOKENS = 16
N_LETTERS = 12


class Undecided(FakeBackend):
    """A model whose logits are a function of all tokens before, with many likely tokens."""

    most_rows = 0
    """The most rows of logits that a batch had."""

    def begin(self, batch: Batch) -> None:
        super().begin(batch)
        entries = zip(batch.sequences, batch.positions, batch.outputs, strict=True)
        ends = [(slot, position + 1) for slot, position, wanted in entries if wanted]
        self.most_rows = max(self.most_rows, len(ends))
        self._undecided = np.full((len(ends), N_VOCAB), -30.0, np.float32)
        for row, (slot, end) in zip(self._undecided, ends, strict=True):
            generator = np.random.default_rng(self.history(slot)[:end])
            row[GENERATED : GENERATED + N_LETTERS] = generator.normal(0.0, 1.5, N_LETTERS)

    def logits(self) -> Logits:
        return self._undecided


def backend() -> Undecided:
    return Undecided(ModelConfig(backend=BackendKind.FAKE), 4)


def run_of() -> EngineRun:
    return EngineRun(backend())


def request(
    kind: str, tokens: tuple[int, ...] = (), state: SamplerState = (), no: int = 1
) -> Generate:
    return Generate(
        Epoch(1),
        RequestNo(no),
        RequestId("r"),
        choice=1,
        prompt_tokens=(65, 66, 67, 65, 66, 67),
        sampling=SamplingParams(seed=11, **RARE[kind]),
        max_tokens=N_TOKENS,
        tokens=tokens,
        sampler_state=state,
    )


def log_at(deltas: list[Delta], position: int) -> tuple[tuple[int, ...], SamplerState]:
    """The log's tokens and state once the delta that ends at `position` has come."""
    tokens: tuple[int, ...] = ()
    for delta in deltas:
        tokens += delta.tokens
        if len(tokens) == position:
            return tokens, delta.sampler_state
    raise AssertionError("a step without a draft has one token")


@pytest.mark.parametrize("kind", RARE)
def test_a_replay_at_each_position_continues_equally(kind: str) -> None:
    first = run_of()
    first.run(request(kind))
    tokens, deltas = first.tokens(1), first.deltas(1)
    assert len(tokens) == N_TOKENS
    again = run_of()
    for position in range(1, N_TOKENS):
        known, state = log_at(deltas, position)
        again.run(request(kind, known, state, no=position))
        assert [*known, *again.tokens(position)] == tokens
        assert again.deltas(position)[-1].sampler_state == deltas[-1].sampler_state


@pytest.mark.parametrize("kind", RARE)
def test_a_preempted_sequence_continues_equally(kind: str) -> None:
    undisturbed, run = run_of(), run_of()
    undisturbed.run(request(kind))

    def preempt() -> None:
        found = run.engine.scheduler.find(RequestNo(1))
        if found is not None and found.n_generated % 5 == 0:
            run.engine.scheduler.preempt(found)

    run.run(request(kind), between=preempt)
    assert run.tokens(1) == undisturbed.tokens(1)


@pytest.mark.parametrize("kind", RARE)
def test_drafts_change_no_token(kind: str) -> None:
    plain, model = run_of(), backend()
    drafting = EngineRun(model, drafter=PromptLookup())
    drafting.fix_costs(first_s=1.0, token_s=0.001)  # drafts pay
    plain.run(request(kind))
    drafting.run(request(kind))
    assert drafting.tokens(1) == plain.tokens(1)
    has_state = bool(plain.deltas(1)[-1].sampler_state)
    assert (model.most_rows == 1) == has_state


@pytest.mark.parametrize("kind", ["mirostat 1", "mirostat 2"])
def test_another_state_makes_another_answer(kind: str) -> None:
    """Were it not so, the tests above could not tell whether a replay has the state."""
    run = run_of()
    run.run(request(kind))
    tokens = run.tokens(1)
    known, _ = log_at(run.deltas(1), 8)
    run.run(request(kind, known, (0.5,), no=2))
    assert run.tokens(2) != tokens[8:]
