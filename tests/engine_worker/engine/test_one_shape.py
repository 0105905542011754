"""Passes of one shape on a device: prompts ahead of them, and whoever comes and goes."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.backend.port import Batch
from engine_worker.engine.batching import batch_of
from gpufc.config import BackendKind, KvUnified, ModelConfig, Replay
from gpufc.errors import DecodeFailed
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Cancel, EngineFailed
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.scheduling.device_planner import running, scheduler, step
from tests.engine_worker.text.sequences import sequence, spec

N_STREAMS = 12


class Recorded(FakeBackend):
    """A device with a KV stream each, and the batches that it was given."""

    batches: list[Batch]

    def begin(self, batch: Batch) -> None:
        self.batches.append(batch)
        if batch.in_one_pass:
            # so it can be cut in two: what is ahead has no outputs, the last pass a row for each
            lasts = {
                sequence: output
                for sequence, output in zip(batch.sequences, batch.outputs, strict=True)
            }
            assert all(lasts.values())
            assert sum(batch.outputs) == len(lasts)
            assert batch.sequences == sorted(batch.sequences)
        super().begin(batch)


def device() -> Recorded:
    config = ModelConfig(
        backend=BackendKind.FAKE, kv_cells=16 * 512, n_ctx=512, kv_unified=KvUnified.FALSE
    )
    made = Recorded.load(config, N_STREAMS + 4, lambda _: None)
    made.batches = []
    made.facts = msgspec.structs.replace(
        made.facts, asynchronous=True, n_gpu_layers=made.facts.n_layers
    )
    return made


# prompts


def test_a_prompt_s_last_token_is_computed_beside_the_others() -> None:
    planner = running()
    planner.add(sequence(spec(20, 50)))
    plan = planner.plan()
    batch = batch_of(plan)
    assert batch.in_one_pass
    assert sum(batch.outputs) == 11
    last = [at for at, position in enumerate(batch.positions) if position == 49]
    assert [batch.outputs[at] for at in last] == [True]


def test_of_a_chunk_that_is_not_the_last_a_row_is_computed_for_nobody() -> None:
    planner = running()
    planner.batch_tokens = 40
    planner._pace._batch_tokens = planner._pace._account = 40
    planner.add(sequence(spec(20, 100)))
    plan = step(planner)
    (chunk,) = [work for work in plan.work if work.count > 1]
    assert (chunk.output, chunk.padding, chunk.n_rows) == (False, True, 1)
    assert sum(batch_of(planner.plan()).outputs) == 11
    while planner.running[-1].n_pending > 1:
        step(planner)
    assert planner.running[-1].n_generated == 1


def test_a_tail_that_is_fed_token_by_token_has_a_row_as_well() -> None:
    planner = running()
    for number, length in ((20, 60), (21, 64)):
        planner.add(sequence(spec(number, length)))
    rows = [sum(batch_of(plan).outputs) for plan in (step(planner) for _ in range(4))]
    assert rows == [12] * 4


@pytest.mark.parametrize("hindrance", ["exact", "draft", "alone"])
def test_passes_are_as_before_where_that_must_not_or_cannot_be(hindrance: str) -> None:
    planner = running() if hindrance != "alone" else scheduler(32, in_one_shape=True)
    if hindrance == "draft":
        planner.running[0].draft = [97, 98]
    replay = Replay.EXACT if hindrance == "exact" else Replay.FAST
    planner.add(sequence(spec(20, 50, replay=replay)))
    plan = planner.plan()
    assert any(work.count > 1 for work in plan.work)
    assert not batch_of(plan).in_one_pass


# in the engine


@pytest.mark.parametrize("n_gpu_layers", [0, 1])
def test_only_a_device_with_all_layers_has_passes_of_one_shape(n_gpu_layers: int) -> None:
    fake = device()
    fake.facts = msgspec.structs.replace(fake.facts, n_layers=1, n_gpu_layers=n_gpu_layers)
    run = EngineRun(fake, max_running=N_STREAMS, batch_tokens=128)
    run.run(*(spec(n, prompt("words " * n), max_tokens=10 * n) for n in range(1, 14)))
    assert any(batch.in_one_pass for batch in fake.batches) is bool(n_gpu_layers)


def test_a_failure_does_not_name_who_has_ended() -> None:
    fake = device()
    run = EngineRun(fake, max_running=N_STREAMS, batch_tokens=256)
    for n in range(1, 11):
        run.engine.inbox.put(spec(n, prompt(f"{n}"), max_tokens=5 if n == 1 else 50))
    while len(run.engine.scheduler.running) != 9 or not run.engine.scheduler.slots.lingering:
        run.engine.take_requests()
        run.engine.run_step()
    fake.begin = failing  # type: ignore[method-assign]
    with pytest.raises(DecodeFailed):
        run.engine.run_step()
    assert isinstance(run.messages[-1], EngineFailed)
    assert run.messages[-1].requests == tuple(range(2, 11))


def failing(_: Batch) -> None:
    raise DecodeFailed("the device is lost")


def prompt(text: str) -> tuple[int, ...]:
    return tuple(tokenize(text, add_special=True))


def test_the_shape_stays_while_requests_come_and_go() -> None:
    fake, dice = device(), random.Random(1)
    run = EngineRun(fake, max_running=N_STREAMS, batch_tokens=256)
    lengths = {n: dice.randint(5, 60) for n in range(1, 60)}
    left = iter(lengths.items())

    def put_more() -> None:
        scheduler = run.engine.scheduler
        n_held = len(scheduler.running) + len(scheduler.waiting) + run.engine.inbox.qsize()
        for _, (n, length) in zip(range(N_STREAMS - n_held), left, strict=False):
            run.engine.inbox.put(spec(n, prompt(f"{n} request " * 3), max_tokens=length))

    n_begun = []

    def note_and_put_more() -> None:
        if len(run.engine.scheduler.decoding()) == N_STREAMS:
            n_begun.append(len(fake.batches))
        put_more()

    put_more()
    run.run(between=note_and_put_more)
    batches = fake.batches[n_begun[0] : n_begun[-1]]
    assert len(batches) > 100
    for batch in batches:
        assert batch.in_one_pass or len(set(batch.sequences)) == len(batch.sequences)
        assert sorted(set(batch.sequences)) == sorted(set(batches[0].sequences))
        assert sum(batch.outputs) == N_STREAMS
    for n, length in lengths.items():
        assert run.tokens(n) == expected_tokens(prompt(f"{n} request " * 3), length)


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_whoever_comes_goes_and_lingers_each_has_its_own_text(dice: random.Random) -> None:
    run = EngineRun(device(), max_running=N_STREAMS, batch_tokens=128)
    shared = prompt("a prefix that some of them share " * 3)
    requests = {}
    for n in range(1, 50):
        words = prompt(f"{n} " * dice.randint(1, 20))
        requests[n] = spec(
            n,
            (*shared, *words) if dice.random() < 0.5 else words,
            max_tokens=dice.randint(1, 40),
            cache_prompt=dice.random() < 0.8,
            replay=dice.choice([Replay.FAST, Replay.FAST, Replay.FAST, Replay.EXACT]),
        )
    left, cancelled = list(requests.values()), set()

    def come_and_go() -> None:
        while left and dice.random() < 0.6:
            run.engine.inbox.put(left.pop())
        if run.engine.scheduler.running and dice.random() < 0.05:
            request = dice.choice(run.engine.scheduler.running).request
            cancelled.add(request)
            run.engine.inbox.put(Cancel(Epoch(1), RequestNo(request)))

    while left:
        come_and_go()
        run.run(between=come_and_go)
    for n, wanted in requests.items():
        if n not in cancelled:
            expected = expected_tokens(wanted.prompt_tokens, wanted.max_tokens or 0)
            assert run.tokens(n) == expected
