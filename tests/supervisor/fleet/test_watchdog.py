"""When to act, and above all when not to. A world of ticks and heartbeats, without a process."""

from collections.abc import Callable

import pytest

from gpufc.protocol import (
    HEARTBEAT_S,
    EnginePhase,
)
from supervisor.fleet.step_rate import StepRate
from supervisor.fleet.watchdog import TICK_S, Watchdog
from tests.supervisor.fleet.watched_world import DECODE, IDLE, PREFILL, World


def idle_for_an_hour(world: World) -> None:
    world.run(3600)


def load_with_heartbeats(world: World) -> None:
    world.run(1800)


def load_that_waits_for_the_disk(world: World) -> None:
    world.computes, world.run_state = False, "D"
    world.run(600)


def load_that_gains_memory_now_and_then(world: World) -> None:
    world.computes = False
    for _ in range(20):
        world.run(10)
        world.rss_pages += 1


def idle_without_computing(world: World) -> None:
    world.computes = False
    world.run(3600)


def load_that_starves_the_heartbeats(world: World) -> None:
    world.talks = False
    world.run(28)
    world.talks = True
    world.run(5)


def load_that_is_stopped_for_5_s(world: World) -> None:
    stop_for_5_s(world)


def stop_for_5_s(world: World) -> None:
    world.run_state = "T"
    world.run(5)
    world.run_state = "S"
    world.run(20)


def stop_for_5_s_in_a_decode_step(world: World) -> None:
    world.used().begin(DECODE, 4)
    world.run_state = "T"
    world.run(5)
    world.run_state = "R"
    world.run(7)  # 12 s after it began, but it was not running for 5 of them
    world.steps(DECODE, 4, 0.05, 400)


def stop_for_5_s_again_and_again(world: World) -> None:
    world.used()
    for _ in range(20):
        world.begin(DECODE, 1)
        stop_for_5_s_in_a_decode_step(world)


def first_prefill_takes_50_s(world: World) -> None:
    world.begin(PREFILL, 128)
    world.run(50)


def prefill_as_slow_as_ever(world: World) -> None:
    world.steps(PREFILL, 128, 9.0, 3)
    world.begin(PREFILL, 128)
    world.run(60)  # predicted: 9 s


def prefill_that_gets_slower_with_the_context(world: World) -> None:
    world.used()
    for chunk in range(64):
        world.steps(PREFILL, 128, 0.5 + 0.15 * chunk)


def decode_of_a_model_on_a_slow_disk(world: World) -> None:
    world.steps(PREFILL, 16, 20.0)
    world.steps(DECODE, 1, 4.0, 5)
    world.begin(DECODE, 1)
    world.run(25)


def first_decode_after_a_long_prefill(world: World) -> None:
    world.steps(PREFILL, 128, 6.0)
    world.begin(DECODE, 1)
    world.run(40)  # nothing tells how long a decode step takes, but a prefill took 6 s


def front_suspended_while_the_worker_serves(world: World) -> None:
    world.used()
    world.front_runs = False
    world.run(300)
    world.front_runs = True
    world.run(5)


def both_suspended_in_a_step(world: World) -> None:
    world.used().begin(DECODE, 1)
    world.run(0.4)
    world.front_runs = world.talks = False
    world.run(300)
    world.front_runs = True
    world.run(8)  # the worker needs longer to wake up
    world.talks = True
    world.run(1)
    world.steps(DECODE, 1, 0.03, 100)


def loop_late_by_9_s_while_heartbeats_wait(world: World) -> None:
    for _ in range(10):
        world.front_runs = False
        world.run(9)
        world.front_runs = True
        world.run(5)


def mapped_model_read_from_the_disk_in_the_first_step(world: World) -> None:
    world.begin(PREFILL, 128)
    world.faulting = True
    world.run(300)


def work_taken_at_once(world: World) -> None:
    for _ in range(20):
        world.dog.handed_work(world.now)
        world.run(0.1)
        world.used()
    world.run(100)


def a_few_quick_steps(world: World) -> None:
    """So quick that no heartbeat shows any of them."""
    world.run(HEARTBEAT_S)
    world.dog.handed_work(world.now)
    world.steps(PREFILL, 20, 0.02)
    world.steps(DECODE, 1, 0.02, 5)


def first_long_prefill_after_a_few_quick_steps(world: World) -> None:
    a_few_quick_steps(world)
    world.steps(PREFILL, 128, 50.0)


def call_that_holds_the_lock_for_25_s(world: World) -> None:
    world.used()
    for _ in range(3):
        world.hold_lock(25)
        world.run(1)


def call_that_holds_the_lock_and_is_told_before_an_earlier_heartbeat(world: World) -> None:
    world.used().hold_lock(25, overtakes=True)
    world.run(1)


def lock_held_in_a_decode_step(world: World) -> None:
    world.used().begin(DECODE, 4)
    world.hold_lock(25)
    world.run(9)  # the step's own time counts from the lock's end
    world.steps(DECODE, 4, 0.05, 400)


CLOCKS = pytest.mark.parametrize("ahead_s", [0.0, 5e5, -900.0])
"""The worker's clock, ahead of the front's: on one machine they are equal."""


@CLOCKS
@pytest.mark.parametrize(
    ("what", "serving"),
    [
        (first_long_prefill_after_a_few_quick_steps, True),
        (idle_for_an_hour, True),
        (load_with_heartbeats, False),
        (load_that_waits_for_the_disk, False),
        (load_that_gains_memory_now_and_then, False),
        (idle_without_computing, True),
        (load_that_starves_the_heartbeats, False),
        (load_that_is_stopped_for_5_s, False),
        (stop_for_5_s, True),
        (stop_for_5_s_in_a_decode_step, True),
        (stop_for_5_s_again_and_again, True),
        (first_prefill_takes_50_s, True),
        (prefill_as_slow_as_ever, True),
        (prefill_that_gets_slower_with_the_context, True),
        (decode_of_a_model_on_a_slow_disk, True),
        (first_decode_after_a_long_prefill, True),
        (front_suspended_while_the_worker_serves, True),
        (both_suspended_in_a_step, True),
        (loop_late_by_9_s_while_heartbeats_wait, True),
        (mapped_model_read_from_the_disk_in_the_first_step, True),
        (work_taken_at_once, True),
        (call_that_holds_the_lock_for_25_s, True),
        (call_that_holds_the_lock_and_is_told_before_an_earlier_heartbeat, True),
        (lock_held_in_a_decode_step, True),
    ],
)
def test_when_not_to_act(what: Callable[[World], None], serving: bool, ahead_s: float) -> None:
    world = World(serving=serving, ahead_s=ahead_s)
    what(world)
    assert world.verdict is None


def stopped_for_ever(world: World) -> None:
    world.run_state = "T"
    world.run(60)


def stopped_for_ever_in_a_step(world: World) -> None:
    world.used().begin(DECODE, 1)
    world.run(0.4)
    stopped_for_ever(world)


def all_threads_stand(world: World) -> None:
    world.talks = False
    world.run(60)


def decode_never_ends(world: World) -> None:
    world.used().begin(DECODE, 3)
    world.run(60)


def prefill_never_ends(world: World) -> None:
    world.used().begin(PREFILL, 128)
    world.run(60)


def decode_never_ends_after_a_few_quick_steps(world: World) -> None:
    a_few_quick_steps(world)
    world.begin(DECODE, 1)
    world.run(60)


def decode_never_ends_after_a_stop(world: World) -> None:
    stop_for_5_s_again_and_again(world)
    decode_never_ends(world)


def slow_prefill_never_ends(world: World) -> None:
    world.steps(PREFILL, 128, 3.0, 3)
    world.begin(PREFILL, 128)
    world.run(60)


def first_prefill_never_ends(world: World) -> None:
    world.begin(PREFILL, 128)
    world.run(100)


def load_that_does_nothing(world: World) -> None:
    world.run(5)
    world.computes = False
    world.run(20)


def load_whose_threads_wait_for_a_lock(world: World) -> None:
    """They wake up now and then to look."""
    world.idle_share = 0.06
    world.talks = False
    load_that_does_nothing(world)


def silent_load(world: World) -> None:
    all_threads_stand(world)


def work_never_taken(world: World) -> None:
    world.used().dog.handed_work(world.now)
    world.run(60)


def lock_held_for_ever(world: World) -> None:
    world.used().hold_lock(60)


def silent_after_the_lock_was_held(world: World) -> None:
    world.used().hold_lock(25)
    world.run(1)
    assert world.verdict is None
    all_threads_stand(world)


def decode_never_ends_after_the_lock_was_held(world: World) -> None:
    world.used().begin(DECODE, 3)
    world.hold_lock(5)
    world.run(60)


def silent_after_the_front_was_suspended(world: World) -> None:
    world.front_runs = world.talks = False
    world.run(300)
    world.front_runs = True
    world.run(60)


@CLOCKS
@pytest.mark.parametrize(
    ("what", "serving", "within_s", "text"),
    [
        (stopped_for_ever, True, 12.0, "run state T"),
        (stopped_for_ever, False, 12.0, "stopped for"),
        (stopped_for_ever_in_a_step, True, 12.0, "run state T"),
        (all_threads_stand, True, 12.0, "no heartbeat"),
        (silent_load, False, 31.0, "no heartbeat"),
        (load_whose_threads_wait_for_a_lock, False, 12.5, "nothing has moved"),
        (load_that_does_nothing, False, 18.0, "nothing has moved"),
        (decode_never_ends_after_a_few_quick_steps, True, 11.5, "decode step 7 of 1 tokens"),
        (decode_never_ends, True, 11.0, "decode step 42 of 3 tokens"),
        (decode_never_ends_after_a_stop, True, 11.0, "decode step"),
        (prefill_never_ends, True, 11.0, "prefill step 42 of 128 tokens"),
        (slow_prefill_never_ends, True, 25.0, "of 24.0 s"),
        (first_prefill_never_ends, True, 61.0, "of 60.0 s"),
        (work_never_taken, True, 31.0, "idle with work"),
        (silent_after_the_front_was_suspended, True, 12.0, "no heartbeat"),
        (lock_held_for_ever, True, 31.0, "no heartbeat"),
        (silent_after_the_lock_was_held, True, 12.0, "no heartbeat"),
        (decode_never_ends_after_the_lock_was_held, True, 11.0, "decode step 42 of 3 tokens"),
    ],
)
def test_when_to_act(
    what: Callable[[World], None], serving: bool, within_s: float, text: str, ahead_s: float
) -> None:
    world = World(serving=serving, ahead_s=ahead_s)
    what(world)
    assert world.verdict is not None
    assert text in world.verdict
    assert world.hung_after is not None
    assert world.hung_after <= within_s


def test_the_engines_own_messages_do_not_stand_for_the_thread_that_reads_ours() -> None:
    """The engine sends its steps itself, and goes on while that thread hangs."""
    world = World().used()
    world.talks = False
    began = world.now
    while world.verdict is None and world.now < began + 60:
        world.begin(DECODE, 1)
        world.dog.stepped(world.record.step)
        world.dog.heard(world.now)
        world.run(0.05)
    assert "no heartbeat" in str(world.verdict)
    assert world.now - began == pytest.approx(10.0, abs=1.0)


def test_a_later_process_of_the_place_knows_what_the_first_has_learnt() -> None:
    first = World().used()
    second = World(rate=first.rate)
    second.begin(PREFILL, 128)
    second.run(100)
    assert second.hung_after == pytest.approx(30.5, abs=1.0)


def test_a_step_that_was_reported_done_is_not_stuck() -> None:
    world = World().used()
    world.begin(DECODE, 1)
    world.dog.stepped(world.record.step)
    world.run(60)
    assert world.verdict is None


def test_the_verdict_brings_its_evidence() -> None:
    world = World().used()
    world.computes = False
    stopped_for_ever(world)
    assert world.verdict is not None
    assert world.verdict.endswith("; run state T, 0% of a core")


def test_a_stop_is_no_measurement() -> None:
    world = World().used()
    before = world.rate.decode_s
    world.begin(DECODE, 1)
    world.run_state = "T"
    world.run(8)
    world.run_state = "R"
    world.run(0.3)
    world.steps(DECODE, 1, 0.03, 40)
    assert world.rate.decode_s == pytest.approx(before, abs=0.05)


def test_without_vitals_silence_still_counts() -> None:
    dog = Watchdog(0.0, StepRate())
    dog.serves(0.0)
    looks = [dog.look(tick * TICK_S, None) for tick in range(1, 24)]
    assert looks[:20] == [None] * 20
    assert str(looks[-1]) == "no heartbeat for 11.5 s; its run state is unknown"


@pytest.mark.parametrize(
    ("learnt", "phase", "n_tokens", "expected"),
    [
        ([], DECODE, 1, None),
        ([(IDLE, 0, 9.0)], PREFILL, 1, None),
        ([(DECODE, 1, 0.5)], PREFILL, 128, None),
        ([(DECODE, 1, 0.5)], DECODE, 1, 0.5),
        ([(PREFILL, 100, 2.0)], PREFILL, 200, 4.0),
        ([(PREFILL, 100, 2.0)], DECODE, 1, 2.0),
        ([(PREFILL, 100, 2.0), (DECODE, 1, 0.5)], PREFILL, 100, 2.5),
        ([(PREFILL, 100, 2.0), (DECODE, 1, 0.1)], DECODE, 50, 1.0),
        ([(DECODE, 1, 1.0), (DECODE, 1, 2.0)], DECODE, 1, 1.3),
        ([(DECODE, 1, 1.0), (DECODE, 1, 0.0)], DECODE, 1, 0.9),
    ],
)
def test_step_rate(
    learnt: list[tuple[EnginePhase, int, float]],
    phase: EnginePhase,
    n_tokens: int,
    expected: float | None,
) -> None:
    rate = StepRate()
    for sample in learnt:
        rate.learn(*sample)
    assert rate.predict(phase, n_tokens) == (None if expected is None else pytest.approx(expected))
