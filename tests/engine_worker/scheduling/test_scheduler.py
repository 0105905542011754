"""Given these sequences, exactly this plan."""

import pytest

from engine_worker.kv.edits import Copy, Remove
from engine_worker.scheduling.policies import scheduler_for
from engine_worker.scheduling.step_costs import StepCosts
from gpufc.config import Replay
from gpufc.errors import OutOfCells
from tests.engine_worker.kv.slot_sets import idle_and_free
from tests.engine_worker.scheduling import plans
from tests.engine_worker.scheduling.mixed_planner import add, profile, scheduler, step, work_of
from tests.engine_worker.text.sequences import sequence, spec


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert scheduler().plan().work == []


def test_a_long_prompt_is_computed_in_chunks_with_output_at_the_last() -> None:
    planner = scheduler(batch_tokens=8)
    add(planner, sequence(spec(1, prompt=20)))
    assert [step(planner) for _ in range(4)] == [
        [(1, 8, False)],
        [(1, 8, False)],
        [(1, 4, True)],
        [(1, 1, True)],
    ]


def test_running_sequences_come_before_a_long_prompt_and_share_the_batch() -> None:
    planner = scheduler(batch_tokens=8)
    add(planner, sequence(spec(1, prompt=2)), sequence(spec(2, prompt=3)))
    step(planner)
    add(planner, sequence(spec(3, prompt=20)))
    assert step(planner) == [(1, 1, True), (2, 1, True), (3, 6, False)]


def test_prompts_are_prefilled_in_order_of_arrival() -> None:
    planner = scheduler(batch_tokens=8)
    add(planner, sequence(spec(1, 6, max_tokens=1)), sequence(spec(2, 6, max_tokens=1)))
    assert step(planner) == [(1, 6, True), (2, 2, False)]


def test_work_is_ordered_by_slots() -> None:
    planner = scheduler(batch_tokens=64)
    add(planner, sequence(spec(1)), sequence(spec(2)), sequence(spec(3)))
    assert plans.slots_of(planner.plan()) == [0, 1, 2]
    step(planner)
    assert plans.slots_of(planner.plan()) == [0, 1, 2]


def test_no_more_than_max_running_run_and_the_next_starts_when_one_ends() -> None:
    planner = scheduler(max_running=1)
    first, second = sequence(spec(1)), sequence(spec(2))
    add(planner, first, second)
    assert step(planner) == [(1, 4, True)]
    planner.finish(first)
    assert [request for request, _, _ in step(planner)] == [2]


def test_a_cancelled_waiting_sequence_never_starts() -> None:
    planner = scheduler()
    waiting = sequence(spec(1))
    add(planner, waiting)
    planner.finish(waiting)
    assert planner.plan().work == []


def test_started_is_said_once_also_after_a_preemption() -> None:
    planner = scheduler()
    running = sequence(spec(1))
    add(planner, running)
    plan = planner.plan()
    planner.commit(plan)
    planner.preempt(running)
    assert [started.request for started in plan.started] == [1]
    assert planner.plan().started == []


PREFIX = tuple(range(40))


def test_a_new_request_starts_from_the_prefix_of_a_running_one() -> None:
    planner = scheduler(batch_tokens=64)
    add(planner, sequence(spec(1, prompt=(*PREFIX, 100))))
    step(planner)
    add(planner, sequence(spec(2, prompt=(*PREFIX, 101, 102))))
    plan = planner.plan()
    assert plan.edits == [Copy(source=0, target=1, n_tokens=40)]
    assert work_of(plan) == [(1, 1, True), (2, 2, True)]
    assert [(started.request, started.n_cached) for started in plan.started] == [(2, 40)]


def test_a_finished_sequences_cells_serve_the_next_request() -> None:
    planner = scheduler(batch_tokens=64)
    first = sequence(spec(1, prompt=PREFIX))
    add(planner, first)
    step(planner)
    planner.finish(first)
    second = sequence(spec(2, prompt=(*PREFIX, 1)))
    add(planner, second)
    plan = planner.plan()
    assert (plan.edits, second.slot, plan.n_tokens) == ([], 0, 1)


def test_the_same_prompt_again_computes_its_last_token_only() -> None:
    planner = scheduler(batch_tokens=64)
    first = sequence(spec(1, prompt=PREFIX))
    add(planner, first)
    step(planner)
    planner.finish(first)
    again = sequence(spec(2, prompt=PREFIX))
    add(planner, again)
    plan = planner.plan()
    assert (plan.edits, again.slot, plan.n_tokens) == ([Remove(0, 39)], 0, 1)


def test_an_idle_slot_that_holds_more_is_copied_from() -> None:
    planner = scheduler(batch_tokens=64)
    first = sequence(spec(1, prompt=PREFIX))
    add(planner, first)
    step(planner)
    planner.finish(first)
    add(planner, sequence(spec(2, prompt=(*PREFIX[:30], 1))))
    assert planner.plan().edits == [Copy(source=0, target=1, n_tokens=30)]


def test_without_cache_prompt_nothing_is_reused_and_nothing_lies_about_when_alone() -> None:
    planner = scheduler(batch_tokens=64)
    first = sequence(spec(1, prompt=PREFIX))
    add(planner, first)
    step(planner)
    planner.finish(first)
    add(planner, sequence(spec(2, prompt=(*PREFIX, 1), cache_prompt=False)))
    plan = planner.plan()
    assert plan.edits == [Remove(0, 0)]
    assert work_of(plan) == [(2, 41, True)]


def test_requests_that_come_together_compute_their_common_prefix_once() -> None:
    planner = scheduler(max_running=4, n_slots=5, batch_tokens=16)
    prompts = [(*PREFIX, 100 + n) for n in range(4)]
    add(planner, *(sequence(spec(n + 1, prompt=prompt)) for n, prompt in enumerate(prompts)))
    n_tokens = 0
    while any(running.n_computed < len(PREFIX) for running in planner.running) or not n_tokens:
        plan = planner.plan()
        n_tokens += plan.n_tokens
        planner.commit(plan)
    assert n_tokens < 2 * len(PREFIX)


def test_a_plan_that_is_dropped_is_made_again_without_its_edits() -> None:
    planner = scheduler(batch_tokens=64)
    add(planner, sequence(spec(1, prompt=(*PREFIX, 100))))
    step(planner)
    add(planner, sequence(spec(2, prompt=(*PREFIX, 101, 102))))
    dropped, again = planner.plan(), planner.plan()
    assert dropped.edits
    assert again.edits == []
    assert again.started == []
    assert work_of(again) == work_of(dropped)


@pytest.mark.parametrize(("least_copied", "first_requests"), [(30, [1]), (50, [1, 2])])
def test_no_request_waits_for_a_prefix_that_is_computed_faster_than_copied(
    least_copied: int, first_requests: list[int]
) -> None:
    streams = profile(4, consecutive=True, least_copied=least_copied)
    planner = scheduler_for(streams, max_running=4, batch_tokens=256, costs=StepCosts())
    add(planner, *(sequence(spec(n, prompt=(*PREFIX, 100 + n))) for n in (1, 2)))
    assert [request for request, _, _ in step(planner)] == first_requests


@pytest.mark.parametrize("n_cached", [0, 1, 3])
def test_no_more_idle_sequences_are_kept_than_configured(n_cached: int) -> None:
    planner = scheduler(max_running=4, n_slots=4 + n_cached, batch_tokens=256)
    for request in range(1, 12):
        running = sequence(spec(request, prompt=20))
        add(planner, running)
        step(planner)
        planner.finish(running)
    assert len(idle_and_free(planner.slots)[0]) == n_cached


def test_when_cells_are_short_idle_prefixes_go_first_then_the_youngest() -> None:
    planner = scheduler(batch_tokens=64)
    done, old, young = (sequence(spec(n, prompt=20)) for n in (1, 2, 3))
    add(planner, done, old, young)
    step(planner)
    planner.finish(done)
    planner.plan()
    planner.make_room()
    assert planner.running == [old, young]
    planner.make_room()
    assert planner.running == [old]
    assert list(planner.waiting) == [young]
    assert (young.slot, young.n_computed) == (None, 0)


def test_one_sequence_that_does_not_fit_alone_is_an_error() -> None:
    planner = scheduler()
    add(planner, sequence(spec(1)))
    planner.plan()
    with pytest.raises(OutOfCells):
        planner.make_room()


def test_a_preempted_sequence_waits_until_another_has_ended() -> None:
    planner = scheduler(batch_tokens=64)
    old, young = sequence(spec(1)), sequence(spec(2))
    add(planner, old, young)
    step(planner)
    planner.make_room()
    assert [request for request, _, _ in step(planner)] == [1]
    planner.finish(old)
    assert step(planner) == [(2, 5, True)]


def test_the_recomputed_tokens_of_a_preempted_sequence_are_counted() -> None:
    planner = scheduler(batch_tokens=64)
    running = sequence(spec(1, prompt=10))
    add(planner, running)
    step(planner)
    step(planner)
    planner.preempt(running)
    plan = planner.plan()
    assert plan.n_tokens == 12
    assert planner.commit(plan) == 11


def test_an_exact_sequence_is_replayed_in_the_same_steps() -> None:
    planner = scheduler(batch_tokens=8)
    running = sequence(spec(1, prompt=10, replay=Replay.EXACT))
    add(planner, running)
    first = [step(planner)[0][1] for _ in range(4)]
    planner.preempt(running)
    again = [step(planner)[0][1] for _ in range(4)]
    assert first == again == [8, 2, 1, 1]


def test_every_slot_is_free_again_when_everything_has_ended() -> None:
    planner = scheduler(max_running=4, n_slots=6, batch_tokens=64)
    for request in range(1, 30):
        running = sequence(spec(request, prompt=20))
        add(planner, running)
        step(planner)
        planner.finish(running)
    idle, free = idle_and_free(planner.slots)
    assert sorted([*idle, *free]) == list(range(6))
