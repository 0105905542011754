"""The watchdog over questions that are answered beside the engine."""

from supervisor.fleet.watchdog import LIMITS
from tests.supervisor.fleet.watched_world import DECODE, World


def test_a_question_that_is_never_answered_hangs_the_worker() -> None:
    world = World().used()
    world.ask(5)
    world.run(30)
    world.ask(5, 6)
    world.run(120)
    assert world.verdict is not None
    assert world.verdict.startswith("preparing a prompt has taken 120.")
    assert world.questions == (5,)


def test_the_engine_s_steps_are_no_excuse_for_a_question() -> None:
    world = World().used()
    world.ask(5)
    world.steps(DECODE, 1, 0.03, 4200)
    assert world.questions == (5,)


def test_questions_that_are_answered_are_left_alone() -> None:
    world = World().used()
    for request in range(1, 5):
        world.ask(request)
        world.run(LIMITS.prepare_s - 1)
    world.ask()
    world.run(300)
    assert world.verdict is None


def test_a_question_is_not_blamed_for_the_time_in_which_the_front_was_suspended() -> None:
    world = World().used()
    world.ask(5)
    world.run(60)
    world.front_runs = False
    world.run(300)
    world.front_runs = True
    world.run(LIMITS.prepare_s - 2)
    assert world.verdict is None


def test_a_question_is_not_blamed_for_the_time_in_which_the_process_was_stopped() -> None:
    world = World().used()
    world.ask(5)
    world.run(115)
    world.run_state = "T"
    world.run(8)
    world.run_state = "S"
    world.run(LIMITS.prepare_s - 2)
    assert world.verdict is None
