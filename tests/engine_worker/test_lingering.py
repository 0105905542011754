"""Passes of one shape on a device: prompts ahead of them, and those that have ended in them."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.backend import Batch
from engine_worker.fake_backend import FakeBackend, expected_tokens
from engine_worker.fake_vocabulary import tokenize
from engine_worker.kv_edit import Copy, Remove
from engine_worker.lingering import LEAST_RUNNING, MOST_ROWS, Lingering
from engine_worker.plan import Place, Plan
from engine_worker.prefix_cache import PrefixCache
from engine_worker.scheduler import Scheduler
from engine_worker.step_batch import batch_of, picks
from engine_worker.step_costs import StepCosts
from engine_worker.stream_slots import StreamSlots
from gpufc.config import BackendKind, KvUnified, ModelConfig, Replay
from gpufc.errors import DecodeFailed
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Cancel, EngineFailed
from tests.engine_worker.engine_runs import EngineRun
from tests.engine_worker.sequences import END, sequence, spec

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


def scheduler(max_running: int = 32) -> Scheduler:
    n_slots = max_running + 4
    return Scheduler(
        max_running=max_running,
        batch_tokens=1024,
        slots=StreamSlots(n_slots, max_idle=n_slots, cache=PrefixCache(can_cut=True)),
        costs=StepCosts(),
        in_passes=True,
        in_one_shape=True,
    )


def step(planner: Scheduler) -> Plan:
    plan = planner.plan()
    planner.commit(plan)
    for item in plan.work:
        if item.output:
            item.sequence.accept(97)
    return plan


def running(n_running: int = 10) -> Scheduler:
    """That many decode, in the first slots."""
    planner = scheduler()
    for number in range(1, n_running + 1):
        planner.add(sequence(spec(number, 40)))
    while any(not seq.n_gained for seq in planner.running) or planner.waiting:
        step(planner)
    return planner


def slots_of(plan: Plan) -> list[int]:
    return [work.start.slot for work in plan.work]


# who lingers


def test_nobody_lingers_beside_a_few() -> None:
    lingering, ended = Lingering(), sequence(spec())
    lingering.add(3, ended)
    assert lingering.beside(LEAST_RUNNING) == {3: ended}
    assert lingering.beside(LEAST_RUNNING - 1) == {}
    assert lingering.beside(LEAST_RUNNING) == {}


def test_all_go_at_once_when_their_rows_have_become_too_many() -> None:
    lingering = Lingering()
    lingering.add(3, sequence(spec(1)))
    for _ in range(MOST_ROWS - 3):
        assert len(lingering.beside(20)) == 1
        lingering.computed()
    lingering.add(4, sequence(spec(2)))
    assert len(lingering.beside(20)) == 2
    lingering.computed()
    lingering.computed()
    assert not lingering.beside(20)
    lingering.add(5, sequence(spec(3)))
    assert len(lingering.beside(20)) == 1  # counted anew


def test_whose_slot_is_taken_goes() -> None:
    lingering = Lingering()
    lingering.add(3, sequence(spec(1)))
    lingering.drop(3)
    lingering.drop(4)
    assert not lingering
    assert lingering.slots == set()


# in the scheduler


def test_who_has_ended_is_computed_on_in_its_place_for_nobody() -> None:
    planner = running()
    before = slots_of(step(planner))
    ended = planner.running[4]
    slot, n_computed = ended.slot, ended.n_computed
    planner.finish(ended)
    plan = step(planner)
    assert slots_of(plan) == before
    (row,) = [work for work in plan.work if work.lingers]
    assert row.lingers == Place(slot, n_computed)
    assert (row.n_rows, row.output, ended in plan.sequences) == (1, False, False)
    assert Remove(slot, n_computed) in planner.plan().edits
    assert ended.n_computed == n_computed


def test_the_next_that_starts_takes_that_place() -> None:
    planner = running()
    before = slots_of(step(planner))
    for ended in (planner.running[9], planner.running[2]):
        planner.finish(ended)
    step(planner)
    for number in (20, 21):
        planner.add(sequence(spec(number)))
        step(planner)
    assert slots_of(step(planner)) == before
    assert not planner.slots.lingering


def test_who_ends_with_an_end_token_lingers_as_well() -> None:
    planner = running()
    before = slots_of(step(planner))
    ended = planner.running[4]
    plan = planner.plan()
    planner.commit(plan)
    for item in plan.work:
        item.sequence.accept(next(iter(END)) if item.sequence is ended else 97)
    planner.finish(ended)
    plan = step(planner)
    assert slots_of(plan) == before
    assert len(batch_of(plan).tokens) == 10


def test_an_open_gap_is_filled_before_one_where_somebody_lingers() -> None:
    planner = running()
    for ended in (planner.running[2], planner.running[7]):
        planner.finish(ended)
    planner.slots.lingering.drop(7)
    planner.add(sequence(spec(20)))
    step(planner)
    assert planner.running[-1].slot == 7
    assert planner.slots.lingering.slots == {2}


def test_nobody_lingers_beside_drafts() -> None:
    planner = running()
    planner.finish(planner.running[4])
    planner.running[0].draft = [97, 98]
    assert not any(work.lingers for work in planner.plan().work)
    assert planner.slots.lingering


def test_nobody_lingers_when_all_have_ended() -> None:
    planner = running()
    for ended in list(planner.running):
        planner.finish(ended)
    assert not planner.slots.lingering
    planner.add(sequence(spec(20, 1100, replay=Replay.EXACT), n_ctx=2000))
    assert [step(planner).work[0].count for _ in range(2)] == [1024, 76]


def test_a_prompt_alone_has_the_whole_batch_though_somebody_lingers() -> None:
    planner = scheduler()
    planner.add(sequence(spec(1)))
    step(planner)
    planner.add(sequence(spec(20, 3000), n_ctx=4000))
    step(planner)
    planner.finish(planner.running[0])
    assert planner.slots.lingering
    assert step(planner).work[0].count == 1024


def test_a_step_is_no_larger_because_somebody_lingers() -> None:
    planner = running()
    planner.batch_tokens = 40
    planner._pace._batch_tokens = planner._pace._account = 40
    planner.finish(planner.running[4])
    planner.finish(planner.running[5])
    planner.add(sequence(spec(20, 100)))
    planner.add(sequence(spec(21, 100)))
    assert planner.plan().n_tokens <= 40


def test_a_conversation_goes_on_where_it_lingers_although_there_is_a_gap() -> None:
    planner = running()
    gone, ended = planner.running[2], planner.running[5]
    for one in (gone, ended):
        slot = one.slot
        planner.finish(one)
    planner.slots.lingering.drop(2)
    planner.add(sequence(spec(20, (*ended.tokens, 98, 99))))
    step(planner)
    assert planner.running[-1].slot == slot == 5


def test_where_somebody_lingers_no_gap_is_closed() -> None:
    planner = running()
    planner.finish(planner.running[4])
    for _ in range(MOST_ROWS - 1):
        assert not any(isinstance(edit, Copy) for edit in step(planner).edits)


def test_whose_slot_takes_cells_from_elsewhere_does_not_linger() -> None:
    planner = running()
    ended = planner.running[4]
    slot = ended.slot
    assert slot is not None
    planner.finish(ended)
    planner.slots.give_up(slot)
    planner.slots._free &= {slot}
    assert planner.slots.adopt("", tuple(range(60))) == slot
    assert not planner.slots.lingering


def test_where_an_idle_prefix_moves_to_nobody_lingers() -> None:
    slots = StreamSlots(4, max_idle=4, cache=PrefixCache(can_cut=True))
    first, second, third = (sequence(spec(n, 40)) for n in (1, 2, 3))
    for one in (first, second, third):
        slots.give(one)
        one.n_computed = 40
        slots.remember(one)
    slots.take_back(second, keep=True)
    slots.lingering.add(3, second)
    slots.give(sequence(spec(4, 40)))  # in the gap, whose prefix moves to the only free slot
    assert slots.idle_and_free == ([3], [])
    assert not slots.lingering


def test_rows_for_nobody_are_chosen_from_in_the_cheapest_way() -> None:
    planner = running()
    planner.finish(planner.running[4])
    (row,) = [work for work in step(planner).work if work.lingers]
    (pick,) = picks(row)
    assert pick.sampler.is_argmax
    assert pick.sampler.adjustment is None


def test_what_is_not_kept_for_others_lingers_at_the_beginning_of_its_slot() -> None:
    planner = running()
    planner.add(sequence(spec(20, cache_prompt=False)))
    step(planner)
    step(planner)
    ended = planner.running[-1]
    slot = ended.slot
    planner.finish(ended)
    (row,) = [work for work in step(planner).work if work.lingers]
    assert row.lingers == Place(slot, 0)


def test_a_gap_is_closed_when_nobody_has_come_for_long() -> None:
    planner = running()
    planner.finish(planner.running[4])
    lengths = [len(step(planner).work) for _ in range(MOST_ROWS + 10)]
    assert lengths == [10] * MOST_ROWS + [9] * 10
    slots = slots_of(planner.plan())
    assert slots == list(range(slots[0], slots[0] + 9))


def test_what_was_cancelled_in_its_prompt_does_not_linger() -> None:
    planner = running()
    waiting = sequence(spec(20))
    planner.add(waiting)
    planner.plan()
    assert waiting.slot is not None
    planner.finish(waiting)
    assert not planner.slots.lingering


def test_when_cells_are_short_those_that_linger_go_first() -> None:
    planner = running()
    planner.finish(planner.running[4])
    planner.make_room()
    assert not planner.slots.lingering
    assert len(planner.running) == 9


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
    planner = running() if hindrance != "alone" else scheduler()
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
