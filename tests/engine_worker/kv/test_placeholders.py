"""Sequences that have ended and are computed on for a while: who, where, and for how long."""

from engine_worker.engine.batching import batch_of, picks
from engine_worker.kv.edits import CellPosition, Copy, Remove
from engine_worker.kv.placeholders import LEAST_RUNNING, MOST_ROWS, Lingering
from engine_worker.kv.prefix_cache import PrefixCache
from engine_worker.kv.stream_slots import StreamSlots
from gpufc.config import Replay
from tests.engine_worker.scheduling.device_planner import running, scheduler, slots_of, step
from tests.engine_worker.text.sequences import END, sequence, spec

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
    assert row.lingers == CellPosition(slot, n_computed)
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
    planner = scheduler(32, in_one_shape=True)
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
    assert pick.sampler.bias is None


def test_what_is_not_kept_for_others_lingers_at_the_beginning_of_its_slot() -> None:
    planner = running()
    planner.add(sequence(spec(20, cache_prompt=False)))
    step(planner)
    step(planner)
    ended = planner.running[-1]
    slot = ended.slot
    planner.finish(ended)
    (row,) = [work for work in step(planner).work if work.lingers]
    assert row.lingers == CellPosition(slot, 0)


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
