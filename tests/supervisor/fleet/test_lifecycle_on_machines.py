"""A worker's lifecycle where a machine has to be found first."""

import pytest

from gpufc.ids import Epoch
from supervisor.fleet import events as ev
from supervisor.fleet.exit_reason import WITH_ITS_MACHINE, ExitReason, Reason
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.states import WorkerState
from tests.supervisor.fleet.lives import (
    E1,
    E2,
    KILLED,
    READY,
    lifecycle,
    successor,
    without_timers,
)


def placed_to_loading() -> WorkerLifecycle:
    """A lifecycle on other machines whose first process loads."""
    life = lifecycle(is_placed=True)
    for event in (ev.StartRequested(), ev.Placed(E1), ev.HelloReceived(E1)):
        life.handle(event, 0.0)
    assert life.state is WorkerState.LOADING
    return life


def test_a_machine_comes_before_the_process() -> None:
    life = lifecycle(is_placed=True)
    assert life.handle(ev.StartRequested(), 0.0) == [ev.Publish(), ev.Place(E1)]
    assert life.state is WorkerState.PLACING
    assert life.handle(ev.MachineAwaited(E1, "a machine with 2 GPUs"), 5.0) == [ev.Publish()]
    assert (life.detail, life.awaits_machine) == ("a machine with 2 GPUs", True)
    assert life.handle(ev.RestartRequested(), 6.0) == []  # it looks for one already
    assert without_timers(life.handle(ev.Placed(E1), 9e9)) == [ev.Spawn(E1, None)]
    assert (life.state, life.awaits_machine) == (WorkerState.STARTING, False)


def test_a_machine_that_gets_the_models_files_is_not_awaited() -> None:
    life = lifecycle(is_placed=True)
    life.handle(ev.StartRequested(), 0.0)
    life.handle(ev.MachineAwaited(E1, "a machine"), 1.0)
    assert life.handle(ev.MachinePrepares(E1, "a: copying m.gguf, 42 %"), 2.0) == [ev.Publish()]
    assert (life.state, life.detail, life.awaits_machine) == (
        WorkerState.PLACING, "a: copying m.gguf, 42 %", False,
    )  # fmt: skip
    life.handle(ev.MachineAwaited(E1, "a machine"), 3.0)
    assert life.awaits_machine


def test_a_stop_ends_the_search_for_a_machine() -> None:
    life = lifecycle(is_placed=True)
    life.handle(ev.StartRequested(), 0.0)
    assert ev.Unplace() in life.handle(ev.StopRequested(), 1.0)
    assert life.state is WorkerState.STOPPED
    assert life.handle(ev.Placed(E1), 2.0) == []


@pytest.mark.parametrize("reason", sorted(WITH_ITS_MACHINE))
def test_a_lost_machine_is_no_death(reason: Reason) -> None:
    life = placed_to_loading()
    for epoch in range(1, 100):
        lost = ExitReason(reason=reason, at=0.0)
        actions = life.handle(ev.Exited(Epoch(epoch), lost), 1.0)
        assert without_timers(actions) == [ev.Release(Epoch(epoch)), ev.Place(Epoch(epoch + 1))]
        assert life.state is WorkerState.PLACING
        life.handle(ev.Placed(Epoch(epoch + 1)), 1.0)
        life.handle(ev.HelloReceived(Epoch(epoch + 1)), 1.0)
    assert life.restarts == 99


def test_a_machine_that_cannot_start_it_is_left_for_another() -> None:
    life = lifecycle(is_placed=True)
    life.handle(ev.StartRequested(), 0.0)
    life.handle(ev.Placed(E1), 0.0)
    actions = life.handle(ev.SpawnFailed(E1, "no such file", is_misplaced=True), 1.0)
    assert without_timers(actions) == [ev.Release(E1), ev.Place(E2, "no such file")]
    assert (life.state, life.restarts) == (WorkerState.PLACING, 0)


def test_a_machine_that_cannot_load_the_model_is_left_for_another() -> None:
    life = placed_to_loading()
    life.handle(ev.LoadFailed(E1, "no such file", retryable=False), 1.0)
    gone = ExitReason(code=72, reason=Reason.EXITED, at=0.0)
    actions = without_timers(life.handle(ev.Exited(E1, gone), 2.0))
    assert actions == [ev.Release(E1), ev.Place(E2, "no such file")]
    assert (life.state, life.restarts) == (WorkerState.PLACING, 0)


def test_requests_wait_for_a_restart_that_its_machine_has_refused() -> None:
    life = placed_to_loading()
    life.handle(ev.BecameReady(E1, READY), 1.0)
    life.handle(ev.TrialPassed(E1), 1.0)
    life.handle(ev.TokenProduced(E1), 1.0)
    life.handle(ev.Exited(E1, KILLED), 2.0)
    assert successor(E2, Reason.KILLED) in life.handle(ev.Placed(E2), 2.0)
    life.handle(ev.SpawnFailed(E2, "no such file", is_misplaced=True), 3.0)
    spawned = life.handle(ev.Placed(Epoch(3)), 4.0)
    assert ev.Spawn(Epoch(3), None, is_awaited=True) in spawned
