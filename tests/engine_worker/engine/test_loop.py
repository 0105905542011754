"""The engine on the fake backend: every token depends on all tokens before it."""

import fcntl
import os
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.vocabulary import piece, tokenize
from engine_worker.backend.port import Batch
from engine_worker.kv.transfer import SEALS
from engine_worker.speculation.drafter import Draft, DraftRequest
from gpufc.config import BackendKind, KvUnified, ModelConfig, Replay
from gpufc.errors import DecodeFailed
from gpufc.ids import Epoch, RequestNo
from gpufc.lending import lent
from gpufc.protocol import (
    Cancel,
    EngineFailed,
    ExportKv,
    Finished,
    FinishReason,
    ImportKv,
    Refused,
    Step,
)
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.text.sequences import spec


def backend(kv_cells: int = 4096, n_ctx: int = 1024, unified: bool = True) -> FakeBackend:
    layout = KvUnified.TRUE if unified else KvUnified.FALSE
    config = ModelConfig(
        backend=BackendKind.FAKE, kv_cells=kv_cells, n_ctx=n_ctx, kv_unified=layout
    )
    return FakeBackend.load(config, 6, lambda _: None)


def on_a_device(fake: FakeBackend) -> FakeBackend:
    """The same, said to compute beside this process, with all its layers."""
    fake.facts = msgspec.structs.replace(
        fake.facts, asynchronous=True, n_gpu_layers=fake.facts.n_layers
    )
    return fake


def prompt(text: str) -> tuple[int, ...]:
    return tuple(tokenize(text, add_special=True))


def test_one_request_brings_its_tokens_and_ends_once() -> None:
    run = EngineRun(backend())
    words = prompt("hello")
    run.run(spec(1, words, max_tokens=10))
    assert run.tokens(1) == expected_tokens(words, 10)
    assert [delta.finish for delta in run.deltas(1)].count(FinishReason.LENGTH) == 1


@pytest.mark.parametrize(
    "fake", [backend(), on_a_device(backend()), on_a_device(backend(6 * 1024, unified=False))]
)
def test_many_requests_of_all_lengths_each_bring_their_own_text(fake: FakeBackend) -> None:
    run = EngineRun(fake)
    prompts = {n: prompt(f"request {n} " * n) for n in range(1, 20)}
    run.run(*(spec(n, words, max_tokens=n + 5) for n, words in prompts.items()))
    for n, words in prompts.items():
        assert run.tokens(n) == expected_tokens(words, n + 5)


def test_a_newcomer_of_a_crowd_gets_its_first_token_in_the_first_step_after_it_came() -> None:
    config = ModelConfig(backend=BackendKind.FAKE, n_ctx=1024)
    run = EngineRun(FakeBackend.load(config, 100, lambda _: None), max_running=96, batch_tokens=256)
    engine = run.engine
    for n in range(1, 96):
        engine.inbox.put(spec(n, prompt("stalled"), max_tokens=1000))
    engine.take_requests()
    for _ in range(20):
        engine.run_step()
    assert all(seq.n_gained for seq in engine.scheduler.running)
    engine.inbox.put(spec(96, prompt("an honest prompt of some words"), max_tokens=1000))
    engine.take_requests()
    engine.run_step()
    assert len(run.tokens(96)) == 1


def test_a_long_prompt_beside_a_full_batch_takes_few_steps() -> None:
    config = ModelConfig(backend=BackendKind.FAKE, n_ctx=4096)
    n_running = 600
    fake = FakeBackend.load(config, n_running, lambda _: None)
    run = EngineRun(fake, max_running=n_running, batch_tokens=fake.facts.batch_tokens)
    run.fix_costs(1.0, 0.0)
    engine = run.engine
    for n in range(1, n_running):
        engine.inbox.put(spec(n, prompt("crowd"), max_tokens=1000))
    engine.take_requests()
    while not all(seq.n_gained for seq in engine.scheduler.running) or engine.scheduler.waiting:
        engine.run_step()
    engine.inbox.put(spec(n_running, prompt("x" * 1024), max_tokens=2))
    engine.take_requests()
    for _ in range(9):  # 1,025 tokens, in chunks of 128 beside 599 streams
        engine.run_step()
    assert run.deltas(n_running)


@pytest.mark.parametrize("unified", [True, False])
def test_a_shared_prefix_is_computed_once_and_changes_nothing(unified: bool) -> None:
    fake = backend(unified=unified, kv_cells=6 * 1024)
    run = EngineRun(fake, batch_tokens=256)
    shared = prompt("a long system prompt that everybody sends " * 4)
    prompts = {n: (*shared, *prompt(f"user {n}")) for n in range(1, 9)}
    for n, words in prompts.items():
        run.run(spec(n, words, max_tokens=8))
        assert run.tokens(n) == expected_tokens(words, 8)
    started = [start for step in run.messages if isinstance(step, Step) for start in step.started]
    assert all(start.n_cached >= len(shared) for start in started[1:])


@given(st.integers(0, 29), st.sampled_from(list(Replay)), st.booleans())
def test_a_sequence_preempted_anywhere_ends_with_the_same_text(
    at: int, replay: Replay, others: bool
) -> None:
    run = EngineRun(backend())
    words = prompt("the one that is preempted " * 3)
    scheduler = run.engine.scheduler
    preempted = []

    def preempt_once() -> None:
        found = scheduler.find(RequestNo(1))
        if not preempted and found is not None and found.n_generated >= at:
            scheduler.preempt(found)
            preempted.append(found.n_generated)

    requests = [spec(1, words, max_tokens=30, replay=replay)]
    if others:
        requests += [spec(n, prompt(f"other {n}"), max_tokens=40) for n in (2, 3)]
    run.run(*requests, between=preempt_once)
    assert preempted
    assert run.tokens(1) == expected_tokens(words, 30)


@pytest.mark.parametrize("unified", [True, False])
def test_when_cells_are_short_sequences_give_way_and_all_still_end_right(unified: bool) -> None:
    cells = 160 if unified else 6 * 160
    run = EngineRun(backend(kv_cells=cells, n_ctx=150, unified=unified))
    prompts = {n: prompt(f"{n}" * 40) for n in range(1, 8)}
    run.run(*(spec(n, words, max_tokens=60) for n, words in prompts.items()))
    for n, words in prompts.items():
        assert run.tokens(n) == expected_tokens(words, 60)
    recomputed = sum(step.n_recomputed for step in run.messages if isinstance(step, Step))
    assert (recomputed > 0) is unified


@pytest.mark.parametrize("cut", [0, 1, 7, 19])
def test_a_replay_goes_on_at_the_next_position(cut: int) -> None:
    words = prompt("replayed")
    tokens = expected_tokens(words, 20)
    run = EngineRun(backend())
    run.run(spec(1, words, tokens=tuple(tokens[:cut]), max_tokens=20))
    assert run.deltas(1)[0].position == cut
    assert run.tokens(1) == tokens[cut:]


def test_a_cancelled_request_is_gone_before_the_next_step() -> None:
    run = EngineRun(backend())
    run.engine.inbox.put(spec(1, prompt("a"), max_tokens=100))
    run.engine.take_requests()
    run.engine.run_step()
    run.engine.inbox.put(Cancel(Epoch(1), RequestNo(1)))
    run.engine.inbox.put(spec(2, prompt("b"), max_tokens=1))
    run.engine.take_requests()
    assert [seq.request for seq in run.engine.scheduler.waiting] == [2]
    assert Finished(Epoch(1), RequestNo(1), FinishReason.CANCELLED) in run.messages
    assert run.engine.scheduler.running == []


def test_cancelling_what_has_ended_says_nothing() -> None:
    run = EngineRun(backend())
    run.run(spec(1, prompt("a"), max_tokens=1))
    before = len(run.messages)
    run.engine.inbox.put(Cancel(Epoch(1), RequestNo(1)))
    run.engine.inbox.put(Cancel(Epoch(1), RequestNo(9)))
    run.engine.take_requests()
    assert len(run.messages) == before


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (spec(1, (1, 2, 99_999)), "invalid_value"),
        (spec(1, (1, -2)), "invalid_value"),
        (spec(1, 2000), "context_length_exceeded"),
    ],
)
def test_what_the_front_should_have_refused_is_answered_rather_than_raised(
    request_: object, code: str
) -> None:
    run = EngineRun(backend())
    run.engine.inbox.put(request_)  # type: ignore[arg-type]
    run.engine.take_requests()
    (refused,) = run.messages
    assert isinstance(refused, Refused)
    assert refused.code == code


def test_a_fatal_decode_names_the_requests_of_its_batch_and_ends_the_engine() -> None:
    run = EngineRun(backend())
    fatal = prompt("[[decode_error@3]]")
    with pytest.raises(DecodeFailed):
        run.run(spec(1, fatal, max_tokens=10), spec(2, prompt("b"), max_tokens=10))
    failed = run.messages[-1]
    assert isinstance(failed, EngineFailed)
    assert failed.requests == (1, 2)
    assert run.tokens(1) == expected_tokens(fatal, 3)


def test_a_model_that_guesses_and_fails_is_told_like_any_other_failure() -> None:
    words = prompt("a")
    drafter = KnowingDrafter({1: words}, 1000)
    run = EngineRun(backend(), drafter=drafter)
    _make_drafts_pay(run)

    def fail(_: object) -> list[Draft]:
        raise DecodeFailed("the draft model is lost")

    drafter.draft_all = fail  # type: ignore[method-assign]
    with pytest.raises(DecodeFailed):
        run.run(spec(1, words, max_tokens=10))
    failed = run.messages[-1]
    assert isinstance(failed, EngineFailed)
    assert (failed.reason, failed.requests) == ("the draft model is lost", (1,))


class CountingBackend(FakeBackend):
    """Counts decodes, and outputs beyond one for each sequence: drafts that are verified."""

    n_decodes = 0
    n_verified = 0

    def begin(self, batch: Batch) -> None:
        self.n_decodes += 1
        pairs = zip(batch.sequences, batch.outputs, strict=True)
        wanted = [sequence for sequence, is_output in pairs if is_output]
        self.n_verified += len(wanted) - len(set(wanted))
        super().begin(batch)


def test_a_long_prompt_delays_a_running_stream_by_no_more_than_one_chunk() -> None:
    config = ModelConfig(backend=BackendKind.FAKE, kv_cells=4096, n_ctx=1024)
    run = EngineRun(CountingBackend(config, 6), batch_tokens=16)
    run.engine.inbox.put(spec(1, prompt("a"), max_tokens=30))
    run.engine.take_requests()
    run.engine.run_step()
    run.engine.inbox.put(spec(2, prompt("long " * 40), max_tokens=1))
    for _ in range(10):
        before = len(run.deltas(1))
        run.engine.take_requests()
        run.engine.run_step()
        assert len(run.deltas(1)) == before + 1


def test_nothing_is_left_in_the_cache_but_what_is_kept_for_reuse() -> None:
    fake = backend()
    run = EngineRun(fake)
    for n in range(1, 40):
        run.run(spec(n, prompt(f"request {n}"), max_tokens=5, cache_prompt=False))
    run.run(spec(99, prompt("x" * 30), max_tokens=3, cache_prompt=False))
    run.run(spec(100, prompt("last" * 10), max_tokens=1, cache_prompt=False))
    assert fake.n_cells_used <= len(prompt("last" * 10)) + 1


def test_a_sequence_that_does_not_fit_alone_is_refused_and_the_engine_goes_on() -> None:
    run = EngineRun(backend(kv_cells=64, n_ctx=200))
    run.run(spec(1, prompt("x" * 100), max_tokens=5), spec(2, prompt("fits"), max_tokens=5))
    (refused,) = (message for message in run.messages if isinstance(message, Refused))
    assert (refused.request, refused.code) == (1, "context_length_exceeded")
    assert run.tokens(2) == expected_tokens(prompt("fits"), 5)


def test_on_a_device_a_refusal_for_lack_of_cells_comes_after_the_last_tokens() -> None:
    fake = on_a_device(backend(kv_cells=64))
    fake.facts = msgspec.structs.replace(fake.facts, n_ctx=200)
    run = EngineRun(fake)
    run.run(spec(1, prompt("x" * 50), max_tokens=100))
    (at,) = (n for n, message in enumerate(run.messages) if isinstance(message, Refused))
    assert len(run.tokens(1)) > 5
    later = [message for message in run.messages[at:] if isinstance(message, Step)]
    assert not any(step.deltas for step in later)


class KnowingDrafter:
    """Guesses what the fake model will say, but that every `wrong`-th guess is another token."""

    position_s: float | None = None

    def __init__(self, prompts: dict[int, tuple[int, ...]], wrong: int) -> None:
        self.n_drafted = 0
        self._prompts = prompts
        self._wrong = wrong

    def assumed_rate(self, evidence: int) -> float:
        return 0.9

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(self._guess(request), 5) for request in requests]

    def forget(self, key: RequestNo) -> None:
        pass

    def _guess(self, request: DraftRequest) -> list[int]:
        words = self._prompts[request.key]
        n_known = len(request.tokens) - len(words)
        guesses = expected_tokens(words, n_known + request.limit)[n_known:]
        self.n_drafted += len(guesses)
        return [
            guess + 1 if (n_known + at) % self._wrong == 0 else guess
            for at, guess in enumerate(guesses)
        ]


@pytest.mark.parametrize("is_device", [False, True])
@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("wrong", [1, 2, 5, 1000])
def test_drafts_change_how_many_steps_it_takes_and_nothing_else(
    unified: bool, wrong: int, is_device: bool
) -> None:
    prompts = {n: prompt(f"request {n} " * n) for n in range(1, 8)}
    drafter = KnowingDrafter(prompts, wrong)
    fake = CountingBackend(
        ModelConfig(
            backend=BackendKind.FAKE,
            kv_cells=6 * 1024,
            n_ctx=1024,
            kv_unified=KvUnified.TRUE if unified else KvUnified.FALSE,
        ),
        6,
    )
    run = EngineRun(on_a_device(fake) if is_device else fake, batch_tokens=64, drafter=drafter)
    _make_drafts_pay(run)
    run.run(*(spec(n, words, max_tokens=40 + n) for n, words in prompts.items()))
    for n, words in prompts.items():
        assert run.tokens(n) == expected_tokens(words, 40 + n)
    assert fake.n_verified or wrong == 1
    if wrong == 1000:
        assert fake.n_decodes < 7 * 40 / 4


def test_what_is_handed_over_has_no_cells_of_drafts_that_did_not_hold() -> None:
    words = prompt("handed over in the middle of it")
    old = EngineRun(backend(), drafter=KnowingDrafter({1: words}, 5))
    new = EngineRun(backend())
    _make_drafts_pay(old)
    fd = os.memfd_create("kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    old.engine.inbox.put(spec(1, words, max_tokens=40))
    while len(old.deltas(1)) < 5:
        old.engine.take_requests()
        old.engine.run_step()
    with lent(fd):
        old.engine.inbox.put(ExportKv(Epoch(1), os.getpid(), fd, 1 << 20))
        old.engine.take_requests()
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        new.engine.inbox.put(ImportKv(Epoch(1), os.getpid(), fd))
        new.engine.take_requests()
    os.close(fd)
    tokens = tuple(old.tokens(1))
    new.run(msgspec.structs.replace(spec(1, words, max_tokens=40), tokens=tokens))
    assert [*tokens, *new.tokens(1)] == expected_tokens(words, 40)
    started = [start for step in new.messages if isinstance(step, Step) for start in step.started]
    assert started[0].n_cached > len(words)


def _make_drafts_pay(run: EngineRun) -> None:
    """Steps that cost the same for any number of tokens, as on a large device."""
    run.fix_costs(1.0, 1e-6)


def test_a_stop_string_within_verified_drafts_ends_the_answer_there() -> None:
    words = prompt("stops [[stop@12]] somewhere")
    text = b"".join(map(piece, expected_tokens(words, 20))).decode()
    stop = text[8:11]
    drafter = KnowingDrafter({1: words}, 1000)
    run = EngineRun(backend(), batch_tokens=64, drafter=drafter)
    _make_drafts_pay(run)
    run.run(spec(1, words, max_tokens=40, stop=(stop,)))
    assert run.text(1) == text[: text.index(stop)]
    assert run.deltas(1)[-1].finish is FinishReason.STOP
