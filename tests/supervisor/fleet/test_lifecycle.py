"""Given these events, exactly these actions."""

import signal

import pytest

from gpufc.ids import Epoch, RequestNo
from supervisor.fleet import events as ev
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.ladder import Timings
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.lifecycle_terms import IllegalMove
from supervisor.fleet.states import MOVES, WorkerState
from tests.supervisor.fleet.lives import (
    DUMP,
    E1,
    E2,
    KILL,
    KILLED,
    READY,
    brought_to,
    fire,
    lifecycle,
    successor,
    timer,
    without_timers,
)


def test_the_way_up() -> None:
    life = lifecycle()
    assert life.handle(ev.StartRequested(), 0.0) == [
        ev.Publish(),
        ev.Spawn(E1, None),
        ev.SetTimer(ev.TimerKind.START, Timings().start_s, 1),
    ]
    assert life.handle(ev.Spawned(E1, 100), 0.0) == []
    assert life.pid == 100
    assert life.handle(ev.HelloReceived(E1), 1.0) == [
        ev.Publish(),
        ev.SetTimer(ev.TimerKind.LOAD, 600.0, 2),
    ]
    assert life.handle(ev.LoadProgress(E1, 0.5), 2.0) == [
        ev.SetTimer(ev.TimerKind.LOAD, 600.0, 3),
        ev.Publish(),
    ]
    assert life.handle(ev.LoadProgress(E1, 0.5), 3.0) == []  # no progress: the time runs on
    assert life.handle(ev.BecameReady(E1, READY), 4.0) == [
        ev.Publish(),
        ev.BeginTrial(READY),
        ev.SetTimer(ev.TimerKind.TRIAL, Timings().trial_s, 4),
    ]
    assert life.state is WorkerState.TRYING
    assert life.handle(ev.TrialPassed(E1), 5.0) == [
        ev.ReportProven(),
        ev.ReportReady(READY),
        ev.Publish(),
    ]
    assert life.state is WorkerState.READY


def test_death_after_a_token_starts_at_once() -> None:
    life = brought_to(WorkerState.READY)
    life.handle(ev.TokenProduced(E1), 1.0)
    assert without_timers(life.handle(ev.Exited(E1, KILLED), 2.0)) == [
        ev.ReportLost(KILLED),
        ev.Release(E1),
        successor(E2, Reason.KILLED),
    ]
    assert (life.state, life.restarts) == (WorkerState.STARTING, 1)


def test_death_before_a_token_waits() -> None:
    life = brought_to(WorkerState.READY)
    actions = life.handle(ev.Exited(E1, KILLED), 2.0)
    assert without_timers(actions) == [ev.ReportLost(KILLED), ev.Release(E1)]
    assert life.state is WorkerState.BACKOFF
    assert life.retry_at is not None
    assert without_timers(fire(life, actions, 3.0)) == [successor(E2, Reason.KILLED)]


def test_a_token_before_ready_does_not_count() -> None:
    life = brought_to(WorkerState.LOADING)
    life.handle(ev.TokenProduced(E1), 1.0)
    life.handle(ev.Exited(E1, KILLED), 2.0)
    assert life.state is WorkerState.BACKOFF


def test_three_starts_that_never_became_ready_fail() -> None:
    life = lifecycle()
    actions = life.handle(ev.StartRequested(), 0.0)
    for epoch in (1, 2, 3):
        assert any(isinstance(action, ev.Spawn) for action in actions)
        actions = life.handle(ev.Exited(Epoch(epoch), KILLED), float(epoch))
        if life.state is WorkerState.BACKOFF:
            actions = fire(life, actions, float(epoch))
    assert life.state is WorkerState.FAILED
    assert "3 starts" in life.detail
    assert "SIGKILL" in life.detail
    assert without_timers(life.handle(ev.RestartRequested(), 9.0)) == [
        successor(Epoch(4), Reason.KILLED)
    ]


def test_a_model_error_is_not_retried() -> None:
    life = brought_to(WorkerState.LOADING)
    actions = life.handle(ev.LoadFailed(E1, "not a GGUF file", retryable=False), 1.0)
    assert without_timers(actions) == [ev.SendShutdown()]
    life.handle(ev.Exited(E1, ExitReason(code=72, reason=Reason.EXITED, at=0.0)), 2.0)
    assert life.state is WorkerState.FAILED
    assert life.detail == "load_failed (code 72): not a GGUF file"


def test_a_load_error_that_may_pass_is_retried() -> None:
    life = brought_to(WorkerState.LOADING)
    life.handle(ev.LoadFailed(E1, "no memory", retryable=True), 1.0)
    life.handle(ev.Exited(E1, KILLED), 2.0)
    assert life.state is WorkerState.BACKOFF


def test_the_polite_ladder() -> None:
    life = brought_to(WorkerState.READY)
    actions = life.handle(ev.StopRequested(), 1.0)
    lost = ExitReason(reason=Reason.STOPPED, at=1.0)
    assert without_timers(actions) == [ev.ReportLost(lost), ev.SendShutdown()]
    assert timer(actions).delay_s == 2.0
    actions = fire(life, actions, 3.0)
    assert without_timers(actions) == [ev.Signal(signal.SIGTERM)]
    assert timer(actions).delay_s == 3.0
    actions = fire(life, actions, 6.0)
    assert without_timers(actions) == [KILL]
    actions = fire(life, actions, 11.0)
    assert without_timers(actions) == [KILL]  # again, until it is gone
    assert without_timers(life.handle(ev.Exited(E1, KILLED), 12.0)) == [ev.Release(E1)]
    assert life.state is WorkerState.STOPPED
    assert life.last_exit is not None
    assert (life.last_exit.reason, life.last_exit.signal) == (Reason.STOPPED, 9)


@pytest.mark.parametrize(
    ("state", "now", "first"),
    [
        (WorkerState.STARTING, False, ev.Signal(signal.SIGTERM)),
        (WorkerState.LOADING, False, ev.Signal(signal.SIGTERM)),
        (WorkerState.DRAINING, False, ev.SendShutdown()),
        (WorkerState.STARTING, True, KILL),
        (WorkerState.READY, True, KILL),
    ],
)
def test_how_a_stop_begins(state: WorkerState, now: bool, first: ev.Action) -> None:
    life = brought_to(state)
    assert without_timers(life.handle(ev.StopRequested(now), 1.0))[-1] == first


def test_stop_now_overtakes_a_patient_stop() -> None:
    life = brought_to(WorkerState.READY)
    patient = life.handle(ev.StopRequested(), 1.0)
    assert without_timers(life.handle(ev.StopRequested(now=True), 1.5)) == [KILL]
    assert fire(life, patient, 3.0) == []


def test_restart_is_no_death() -> None:
    life = brought_to(WorkerState.READY)
    life.handle(ev.RestartRequested(), 1.0)
    exited = ExitReason(code=0, reason=Reason.EXITED, at=2.0)
    assert without_timers(life.handle(ev.Exited(E1, exited), 2.0)) == [
        ev.Release(E1),
        successor(E2, Reason.RESTARTED),
    ]


def test_stop_wins_over_restart() -> None:
    life = brought_to(WorkerState.READY)
    life.handle(ev.StopRequested(), 1.0)
    life.handle(ev.RestartRequested(), 1.1)
    life.handle(ev.Exited(E1, KILLED), 2.0)
    assert life.state is WorkerState.STOPPED


def test_a_hung_worker_is_lost_at_once_dumped_and_killed() -> None:
    life = brought_to(WorkerState.READY)
    life.handle(ev.TokenProduced(E1), 1.0)
    actions = life.handle(ev.DeclaredHung(E1, "no step for 10 s"), 20.0)
    lost = ExitReason(reason=Reason.HUNG, at=20.0, detail="no step for 10 s")
    assert without_timers(actions) == [ev.ReportLost(lost), *DUMP]
    assert life.giving_up is Reason.HUNG
    assert without_timers(fire(life, actions, 22.0)) == [KILL]
    actions = life.handle(ev.Exited(E1, KILLED), 22.1)
    assert without_timers(actions) == [ev.Release(E1), successor(E2, Reason.HUNG)]


@pytest.mark.parametrize("is_proven", [True, False])
def test_a_worker_that_begins_to_end_is_lost_at_once_and_replaced_when_it_is_gone(
    is_proven: bool,
) -> None:
    life = brought_to(WorkerState.READY)
    if is_proven:
        life.handle(ev.TokenProduced(E1), 1.0)
    actions = life.handle(ev.Ending(E1, KILLED), 2.0)
    assert without_timers(actions) == [ev.ReportLost(KILLED), KILL]
    assert life.state is WorkerState.STOPPING
    actions = life.handle(ev.Exited(E1, KILLED), 2.1)
    spawned = [successor(E2, Reason.KILLED)] if is_proven else []
    assert without_timers(actions) == [ev.Release(E1), *spawned]
    assert life.state is (WorkerState.STARTING if is_proven else WorkerState.BACKOFF)
    assert life.last_exit == KILLED


@pytest.mark.parametrize("state", [WorkerState.STARTING, WorkerState.LOADING, WorkerState.TRYING])
def test_without_streams_a_worker_is_judged_by_its_end(state: WorkerState) -> None:
    life = brought_to(state)
    assert life.handle(ev.Ending(E1, KILLED), 2.0) == []
    assert life.state is state


def test_a_broken_engine_tells_its_batch() -> None:
    life = brought_to(WorkerState.READY)
    actions = life.handle(ev.EngineBroke(E1, "decode returned -3", (RequestNo(4),)), 1.0)
    lost = ExitReason(
        reason=Reason.DECODE_FAILED, at=1.0, detail="decode returned -3", requests=(RequestNo(4),)
    )
    assert without_timers(actions) == [ev.ReportLost(lost), ev.SendShutdown()]


@pytest.mark.parametrize(
    ("state", "kind", "reason"),
    [
        (WorkerState.STARTING, ev.TimerKind.START, Reason.START_TIMEOUT),
        (WorkerState.LOADING, ev.TimerKind.LOAD, Reason.LOAD_TIMEOUT),
    ],
)
def test_waiting_has_an_end(state: WorkerState, kind: ev.TimerKind, reason: Reason) -> None:
    life = brought_to(state)
    generation = 1 if state is WorkerState.STARTING else 2
    assert without_timers(life.handle(ev.TimerFired(kind, generation), 99.0)) == DUMP
    assert life.giving_up is reason


@pytest.mark.parametrize(
    "event",
    [
        ev.HelloReceived(E1),
        ev.BecameReady(E1, READY),
        ev.LinkBroken(E1, "late"),
        ev.DeclaredHung(E1, "late"),
        ev.LoadFailed(E1, "late", retryable=False),
        ev.Exited(E1, KILLED),
        ev.TimerFired(ev.TimerKind.START, 1),
    ],
)
def test_what_an_earlier_process_did_is_ignored(event: ev.Event) -> None:
    life = brought_to(WorkerState.READY)
    life.handle(ev.TokenProduced(E1), 0.0)
    life.handle(ev.Exited(E1, KILLED), 1.0)
    assert life.epoch == 2
    assert life.handle(event, 2.0) == []
    assert life.state is WorkerState.STARTING


@pytest.mark.parametrize(
    "event",
    [ev.HelloReceived(E1), ev.BecameReady(E1, READY), ev.LinkBroken(E1, "garbage")],
)
def test_breaking_the_protocol_is_punished(event: ev.Event) -> None:
    life = brought_to(WorkerState.READY)
    assert without_timers(life.handle(event, 1.0))[-1] == KILL
    assert life.giving_up is Reason.PROTOCOL_ERROR


def test_spawn_failure_is_retried_then_fails() -> None:
    life = lifecycle()
    life.handle(ev.StartRequested(), 0.0)
    actions = life.handle(ev.SpawnFailed(E1, "no memory"), 0.0)
    assert life.state is WorkerState.BACKOFF
    assert life.last_exit is not None
    assert life.last_exit.reason is Reason.SPAWN_FAILED
    assert without_timers(fire(life, actions, 1.0)) == [successor(E2, Reason.SPAWN_FAILED)]


def refused(life: WorkerLifecycle, now: float) -> list[ev.Action]:
    return life.handle(ev.SpawnFailed(life.epoch, "Too many open files", is_refusal=True), now)


def test_a_start_that_the_system_refuses_is_tried_again_for_ever() -> None:
    life = lifecycle(restart_limit=2)
    life.handle(ev.StartRequested(), 0.0)
    now, waits = 0.0, []
    for _ in range(40):
        actions = refused(life, now)
        assert life.state is WorkerState.BACKOFF
        assert "Too many open files" in life.detail
        waits.append(timer(actions).delay_s)
        now += waits[-1]
        assert without_timers(fire(life, actions, now)) == [ev.Spawn(life.epoch, None)]
    assert max(waits) <= 30.0
    assert waits[0] <= 0.25
    assert waits[-1] >= 15.0
    assert life.restarts == 0  # none has begun


def test_a_refused_start_counts_one_replacement_and_keeps_the_proof() -> None:
    life = brought_to(WorkerState.READY)
    life.handle(ev.TokenProduced(E1), 1.0)
    life.handle(ev.Exited(E1, KILLED), 2.0)
    assert life.restarts == 1
    fire(life, refused(life, 2.0), 3.0)
    life.handle(ev.Spawned(life.epoch, 101), 3.0)
    life.handle(ev.HelloReceived(life.epoch), 3.0)
    actions = life.handle(ev.BecameReady(life.epoch, READY), 4.0)
    assert (life.state, life.restarts) == (WorkerState.READY, 1)
    assert ev.ReportReady(READY) in actions


@pytest.mark.parametrize("is_awaited", [True, False])
def test_a_start_after_a_refused_one_is_awaited_as_that_one_was(is_awaited: bool) -> None:
    life = lifecycle()
    life.handle(ev.StartRequested(is_awaited), 0.0)
    actions = fire(life, refused(life, 0.0), 1.0)
    assert without_timers(actions) == [ev.Spawn(E2, None, is_awaited)]


def test_requests_wait_for_a_restart_that_the_system_has_refused() -> None:
    life = brought_to(WorkerState.READY)
    life.handle(ev.TokenProduced(E1), 1.0)
    life.handle(ev.Exited(E1, KILLED), 2.0)
    actions = fire(life, refused(life, 2.0), 3.0)
    assert without_timers(actions) == [ev.Spawn(life.epoch, None, is_awaited=True)]


def test_a_start_after_an_unload_is_awaited_only_by_its_own_request() -> None:
    life = brought_to(WorkerState.READY)
    life.handle(ev.TokenProduced(E1), 1.0)
    life.handle(ev.Exited(E1, KILLED), 2.0)
    life.handle(ev.StopRequested(now=True, reason=Reason.UNLOADED), 3.0)
    life.handle(ev.Exited(E2, KILLED), 3.0)
    assert ev.Spawn(Epoch(3), None) in life.handle(ev.StartRequested(), 4.0)


def test_a_start_allowed_ends_the_growing_of_the_pauses() -> None:
    life = lifecycle()
    life.handle(ev.StartRequested(), 0.0)
    for _ in range(10):
        fire(life, refused(life, 0.0), 0.0)
    life.handle(ev.Spawned(life.epoch, 100), 1.0)
    life.handle(ev.Exited(life.epoch, KILLED), 1.0)
    life.handle(ev.RestartRequested(), 1.0)
    assert timer(refused(life, 1.0)).delay_s <= 0.25


def test_a_stop_that_comes_before_the_refusal_stays() -> None:
    life = lifecycle()
    life.handle(ev.StartRequested(), 0.0)
    life.handle(ev.StopRequested(), 0.0)
    refused(life, 0.0)
    assert life.state is WorkerState.STOPPED


def test_another_model_file_ends_failed_and_no_other_state() -> None:
    life = brought_to(WorkerState.LOADING)
    assert life.handle(ev.ModelFileChanged(), 1.0) == []
    life.handle(ev.LoadFailed(E1, "no such file", retryable=False), 1.0)
    assert life.handle(ev.ModelFileChanged(), 1.0) == []
    life.handle(ev.Exited(E1, KILLED), 1.0)
    assert life.state is WorkerState.FAILED
    assert successor(E2, Reason.LOAD_FAILED) in life.handle(ev.ModelFileChanged(), 2.0)


def test_draining_ends_by_stop() -> None:
    life = brought_to(WorkerState.DRAINING)
    life.handle(ev.StopRequested(), 1.0)
    assert life.state is WorkerState.STOPPING


def test_an_end_without_a_process_is_a_defect_and_shows_its_history() -> None:
    life = brought_to(WorkerState.READY)
    life.handle(ev.Exited(E1, KILLED), 1.0)
    with pytest.raises(IllegalMove, match="StartRequested") as caught:
        life.handle(ev.Exited(E1, KILLED), 2.0)
    assert "end of a process that is gone" in str(caught.value)


@pytest.mark.parametrize("state", [WorkerState.STARTING, WorkerState.READY])
def test_starting_what_runs_is_a_defect(state: WorkerState) -> None:
    with pytest.raises(IllegalMove):
        brought_to(state).handle(ev.StartRequested(), 1.0)


def test_history_is_bounded() -> None:
    life = brought_to(WorkerState.READY)
    for _ in range(1000):
        life.handle(ev.TokenProduced(E1), 1.0)
    with pytest.raises(IllegalMove) as caught:
        life.handle(ev.StartRequested(), 1.0)
    assert len(str(caught.value).splitlines()) == 51


def test_every_state_can_be_left_and_reached() -> None:
    assert set(MOVES) == set(WorkerState)
    assert {to for targets in MOVES.values() for to in targets} == set(WorkerState)
