"""Placeholder rows: in which slots, beside what, and for how long."""

from engine_worker.engine.batching import batch_of, padding_pick, picks
from engine_worker.kv.edits import Copy, Remove
from engine_worker.kv.prefix_cache import PrefixCache
from engine_worker.scheduling.placeholders import Placeholder, PlaceholderSlots
from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.text.sequence import Sequence
from engine_worker.tuning import H100
from gpufc.config import Replay
from tests.engine_worker.kv.slot_sets import idle_and_free
from tests.engine_worker.scheduling.device_planner import fixed_pass_planner, running
from tests.engine_worker.scheduling.plans import computed, slots_of, step
from tests.engine_worker.text.sequences import END, N_VOCAB, sequence, spec

LEAST_RUNNING, MOST_ROWS = H100.placeholders.least_rows, H100.placeholders.most_rows


def rows(plan: Plan) -> list[Placeholder]:
    return [work for work in plan.work if isinstance(work, Placeholder)]


def slots_of_planner(planner: Scheduler) -> PlaceholderSlots:
    assert isinstance(planner.slots, PlaceholderSlots)
    return planner.slots


def held(planner: Scheduler) -> set[int]:
    return set(slots_of_planner(planner).held)


# which slots are held


def started(n_running: int) -> tuple[PlaceholderSlots, list[Sequence]]:
    """Slots in which so many sequences have computed all of their prompts."""
    slots = PlaceholderSlots(20, max_idle=20, cache=PrefixCache(can_cut=True))
    sequences = [sequence(spec(n)) for n in range(n_running)]
    for each in sequences:
        slots.give(each)
        each.advance(each.n_pending)
    return slots, sequences


def test_there_are_no_placeholder_rows_beside_a_few_sequences() -> None:
    slots, sequences = started(12)
    slots.take_back(sequences[3], keep=True)
    assert [row.slot for row in slots.placeholders(LEAST_RUNNING)] == [3]
    assert slots.placeholders(LEAST_RUNNING - 1) == []
    assert slots.placeholders(LEAST_RUNNING) == []


def test_all_holds_end_at_once_when_their_rows_have_become_too_many() -> None:
    slots, sequences = started(12)
    slots.take_back(sequences[3], keep=True)
    for _ in range(MOST_ROWS - 3):
        (row,) = slots.placeholders(20)
        slots.computed(row)
    slots.take_back(sequences[4], keep=True)
    both = slots.placeholders(20)
    assert len(both) == 2
    for row in both:
        slots.computed(row)
    assert slots.placeholders(20) == []
    slots.take_back(sequences[5], keep=True)
    assert len(slots.placeholders(20)) == 1  # counted anew


def test_a_sequence_that_takes_a_slot_ends_its_hold() -> None:
    slots, sequences = started(12)
    slots.take_back(sequences[3], keep=True)
    fresh = sequence(spec(20))
    slots.give(fresh)
    assert fresh.slot == 3
    assert not slots.held


# in the scheduler


def test_the_slot_of_a_finished_sequence_is_computed_on() -> None:
    planner = running()
    before = slots_of(step(planner))
    ended = planner.running[4]
    slot, n_computed = ended.slot, ended.n_computed
    assert slot is not None
    planner.finish(ended)
    plan = step(planner)
    assert slots_of(plan) == before
    (row,) = rows(plan)
    assert (row.slot, row.position) == (slot, n_computed)
    assert (row.n_rows, ended in plan.sequences) == (1, False)
    assert Remove(slot, n_computed) in planner.plan().edits
    assert ended.n_computed == n_computed


def test_the_next_sequence_that_starts_takes_that_place() -> None:
    planner = running()
    before = slots_of(step(planner))
    for ended in (planner.running[9], planner.running[2]):
        planner.finish(ended)
    step(planner)
    for number in (20, 21):
        planner.add(sequence(spec(number)))
        step(planner)
    assert slots_of(step(planner)) == before
    assert not held(planner)


def test_a_sequence_that_ends_with_an_end_token_leaves_a_row_as_well() -> None:
    planner = running()
    before = slots_of(step(planner))
    ended = planner.running[4]
    plan = planner.plan()
    planner.commit(plan)
    for seq, _, _ in computed(plan):
        seq.accept(next(iter(END)) if seq is ended else 97)
    planner.finish(ended)
    plan = step(planner)
    assert slots_of(plan) == before
    assert len(batch_of(plan).tokens) == 10


def test_a_gap_without_a_row_is_filled_before_a_slot_with_one() -> None:
    planner = running()
    for ended in (planner.running[2], planner.running[7]):
        planner.finish(ended)
    slots_of_planner(planner)._end_hold(7)
    planner.add(sequence(spec(20)))
    step(planner)
    assert planner.running[-1].slot == 7
    assert held(planner) == {2}


def test_there_are_no_placeholder_rows_beside_drafts() -> None:
    planner = running()
    planner.finish(planner.running[4])
    planner.running[0].draft = [97, 98]
    assert not rows(planner.plan())
    assert held(planner)


def test_no_slot_is_held_when_all_sequences_have_ended() -> None:
    planner = running()
    for ended in list(planner.running):
        planner.finish(ended)
    assert not held(planner)
    planner.add(sequence(spec(20, 1100, replay=Replay.EXACT), n_ctx=2000))
    assert [computed(step(planner))[0].count for _ in range(2)] == [1024, 76]


def test_a_prompt_alone_has_the_whole_batch_although_a_slot_is_held() -> None:
    planner = fixed_pass_planner()
    planner.add(sequence(spec(1)))
    step(planner)
    planner.add(sequence(spec(20, 3000), n_ctx=4000))
    step(planner)
    planner.finish(planner.running[0])
    assert held(planner)
    assert computed(step(planner))[0].count == 1024


def test_a_step_is_no_larger_for_its_placeholder_rows() -> None:
    planner = running(batch_tokens=40)
    planner.finish(planner.running[4])
    planner.finish(planner.running[5])
    planner.add(sequence(spec(20, 100)))
    planner.add(sequence(spec(21, 100)))
    plan = planner.plan()
    assert len(rows(plan)) == 1  # the other slot is taken
    assert plan.n_tokens <= 40


def test_a_conversation_goes_on_in_its_held_slot_although_there_is_a_gap() -> None:
    planner = running()
    gone, ended = planner.running[2], planner.running[5]
    for one in (gone, ended):
        slot = one.slot
        planner.finish(one)
    slots_of_planner(planner)._end_hold(2)
    planner.add(sequence(spec(20, (*ended.tokens, 98, 99))))
    step(planner)
    assert planner.running[-1].slot == slot == 5


def test_no_gap_is_closed_in_which_a_slot_is_held() -> None:
    planner = running()
    planner.finish(planner.running[4])
    for _ in range(MOST_ROWS - 1):
        assert not any(isinstance(edit, Copy) for edit in step(planner).edits)


def test_a_slot_that_takes_cells_from_elsewhere_is_not_held() -> None:
    planner = running()
    ended = planner.running[4]
    slot = ended.slot
    assert slot is not None
    planner.finish(ended)
    planner.slots.give_up(slot)
    planner.slots._free &= {slot}
    assert planner.slots.adopt("", tuple(range(60))) == slot
    assert not held(planner)


def test_a_slot_to_which_an_idle_prefix_moves_is_not_held() -> None:
    slots = PlaceholderSlots(4, max_idle=4, cache=PrefixCache(can_cut=True))
    first, second, third, fourth = (sequence(spec(n, 40)) for n in (1, 2, 3, 4))
    for one in (first, second, third, fourth):
        slots.give(one)
        one.advance(one.n_pending)
        slots.remember(one)
    slots.take_back(fourth, keep=True)
    slots.give_up(3)  # held, and free
    slots.take_back(second, keep=True)
    slots._end_hold(1)
    assert set(slots.held) == {3}
    slots.give(sequence(spec(5, 40)))  # in the gap, whose prefix moves to the only free slot
    assert idle_and_free(slots) == ([3], [])
    assert not slots.held


def test_placeholder_rows_are_chosen_from_in_the_cheapest_way() -> None:
    planner = running()
    planner.finish(planner.running[4])
    (row,) = rows(step(planner))
    (pick,) = picks(row, padding_pick(N_VOCAB), iter(()))
    assert pick.sampler.is_argmax
    assert pick.sampler.bias is None


def test_a_sequence_whose_cells_are_not_kept_leaves_a_row_at_the_beginning_of_its_slot() -> None:
    planner = running()
    planner.add(sequence(spec(20, cache_prompt=False)))
    step(planner)
    step(planner)
    ended = planner.running[-1]
    slot = ended.slot
    planner.finish(ended)
    (row,) = rows(step(planner))
    assert (row.slot, row.position) == (slot, 0)


def test_a_gap_is_closed_when_no_sequence_has_started_in_it_for_long() -> None:
    planner = running()
    planner.finish(planner.running[4])
    lengths = [len(step(planner).work) for _ in range(MOST_ROWS + 10)]
    assert lengths == [10] * MOST_ROWS + [9] * 10
    slots = slots_of(planner.plan())
    assert slots == list(range(slots[0], slots[0] + 9))


def test_a_sequence_that_is_cancelled_in_its_prompt_leaves_no_row() -> None:
    planner = running()
    waiting = sequence(spec(20))
    planner.add(waiting)
    planner.plan()
    assert waiting.slot is not None
    planner.finish(waiting)
    assert not held(planner)


def test_when_cells_are_short_placeholder_rows_go_first() -> None:
    planner = running()
    planner.finish(planner.running[4])
    planner.make_room()
    assert not held(planner)
    assert len(planner.running) == 9
