"""When a worker has to pass a trial, and what a failed one means."""

import pytest

from gpufc.ids import RequestNo
from supervisor.fleet import events as ev
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.states import WorkerState
from tests.supervisor.fleet.lives import CRASHED, E1, E2, KILLED, READY, brought_to, fire


def came_up_again(life: WorkerLifecycle, end: ExitReason) -> list[ev.Action]:
    """The process ends so, and the next one loads. The actions of its ready."""
    life.handle(ev.TokenProduced(life.epoch), 1.0)
    life.handle(ev.Exited(life.epoch, end), 2.0)
    life.handle(ev.Spawned(life.epoch, 101), 2.0)
    life.handle(ev.HelloReceived(life.epoch), 2.0)
    return life.handle(ev.BecameReady(life.epoch, READY), 3.0)


def test_after_a_kill_from_outside_no_trial_is_needed() -> None:
    life = brought_to(WorkerState.READY)
    came_up_again(life, KILLED)
    assert life.state is WorkerState.READY


def test_after_a_crash_the_engine_is_tried_and_the_doubt_outlives_a_kill() -> None:
    life = brought_to(WorkerState.READY)
    assert ev.BeginTrial(READY) in came_up_again(life, CRASHED)
    assert life.state is WorkerState.TRYING
    actions = life.handle(ev.Exited(E2, KILLED), 4.0)
    fire(life, actions, 5.0)
    epoch = life.epoch
    life.handle(ev.HelloReceived(epoch), 5.0)
    life.handle(ev.BecameReady(epoch, READY), 5.0)
    assert life.state is WorkerState.TRYING


def test_an_engine_that_fails_each_trial_fails_and_says_why() -> None:
    life = brought_to(WorkerState.TRYING)
    while life.state is not WorkerState.FAILED:
        epoch = life.epoch
        life.handle(ev.TrialFailed(epoch, "it generated no token"), 1.0)
        assert life.giving_up is Reason.TRIAL_FAILED
        actions = life.handle(ev.Exited(epoch, KILLED), 1.0)
        if life.state is WorkerState.BACKOFF:
            fire(life, actions, 2.0)
            life.handle(ev.HelloReceived(life.epoch), 2.0)
            life.handle(ev.BecameReady(life.epoch, READY), 2.0)
    assert life.epoch == 3
    assert "its trial failed: it generated no token" in life.detail


def test_the_engine_that_breaks_in_its_trial_never_was_ready() -> None:
    life = brought_to(WorkerState.TRYING)
    actions = life.handle(ev.EngineBroke(E1, "NaN", (RequestNo(0),)), 1.0)
    assert not any(isinstance(action, ev.ReportLost) for action in actions)
    assert life.giving_up is Reason.DECODE_FAILED


def test_a_trial_that_does_not_end_is_a_failed_one() -> None:
    life = brought_to(WorkerState.LOADING)
    actions = life.handle(ev.BecameReady(E1, READY), 1.0)
    fire(life, actions, 301.0)
    assert life.giving_up is Reason.TRIAL_FAILED


@pytest.mark.parametrize("event", [ev.TrialPassed(E1), ev.TrialFailed(E1, "no token")])
def test_a_trial_that_is_settled_too_late_changes_nothing(event: ev.Event) -> None:
    life = brought_to(WorkerState.TRYING)
    life.handle(ev.DeclaredHung(E1, "no step"), 1.0)
    assert life.handle(event, 2.0) == []
    assert life.giving_up is Reason.HUNG
    ready_one = brought_to(WorkerState.READY)
    assert ready_one.handle(event, 2.0) == []
    assert ready_one.state is WorkerState.READY
