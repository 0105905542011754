"""Given these events, exactly these actions."""

import itertools
import random
import signal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpufc.ids import Epoch, RequestNo
from supervisor.fleet import events as ev
from supervisor.fleet.exit_reason import WITH_ITS_MACHINE, ExitReason, Reason
from supervisor.fleet.ladder import Timings
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.lifecycle_terms import IllegalMove
from supervisor.fleet.restart_policy import RestartPolicy
from supervisor.fleet.states import HAS_PROCESS, MOVES, SERVING, WorkerState
from tests.fakes.child_worker import ready

E1, E2 = Epoch(1), Epoch(2)
KILLED = ExitReason(signal=9, reason=Reason.KILLED, at=0.0)
CRASHED = ExitReason(signal=11, reason=Reason.CRASHED, at=0.0)
READY = ready(E1)
KILL = ev.Signal(signal.SIGKILL, group=True)
DUMP = [ev.Signal(signal.SIGCONT), ev.Signal(signal.SIGABRT)]


def lifecycle(restart_limit: int = 10, *, is_placed: bool = False) -> WorkerLifecycle:
    epochs = itertools.count(1)
    policy = RestartPolicy(restart_limit, random.Random(1))
    return WorkerLifecycle(policy, Timings(), lambda: Epoch(next(epochs)), is_placed=is_placed)


def brought_to(state: WorkerState) -> WorkerLifecycle:
    """A lifecycle whose first process has come that far."""
    life = lifecycle()
    path: list[ev.Event] = [
        ev.StartRequested(),
        ev.Spawned(E1, 100),
        ev.HelloReceived(E1),
        ev.BecameReady(E1, READY),
        ev.TrialPassed(E1),
        ev.DrainRequested(),
    ]
    for event in path:
        if life.state is state:
            break
        life.handle(event, 0.0)
    assert life.state is state
    return life


def without_timers(actions: list[ev.Action]) -> list[ev.Action]:
    return [a for a in actions if not isinstance(a, ev.SetTimer | ev.Publish)]


def timer(actions: list[ev.Action]) -> ev.SetTimer:
    (found,) = [action for action in actions if isinstance(action, ev.SetTimer)]
    return found


def fire(life: WorkerLifecycle, actions: list[ev.Action], now: float) -> list[ev.Action]:
    due = timer(actions)
    return life.handle(ev.TimerFired(due.kind, due.generation), now)


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
        ev.Spawn(E2, Reason.KILLED),
    ]
    assert (life.state, life.restarts) == (WorkerState.STARTING, 1)


def test_death_before_a_token_waits() -> None:
    life = brought_to(WorkerState.READY)
    actions = life.handle(ev.Exited(E1, KILLED), 2.0)
    assert without_timers(actions) == [ev.ReportLost(KILLED), ev.Release(E1)]
    assert life.state is WorkerState.BACKOFF
    assert life.retry_at is not None
    assert without_timers(fire(life, actions, 3.0)) == [ev.Spawn(E2, Reason.KILLED)]


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
        ev.Spawn(Epoch(4), Reason.KILLED)
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
        ev.Spawn(E2, Reason.RESTARTED),
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
    assert without_timers(actions) == [ev.Release(E1), ev.Spawn(E2, Reason.HUNG)]


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
    assert without_timers(fire(life, actions, 1.0)) == [ev.Spawn(E2, Reason.SPAWN_FAILED)]


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


def test_another_model_file_ends_failed_and_no_other_state() -> None:
    life = brought_to(WorkerState.LOADING)
    assert life.handle(ev.ModelFileChanged(), 1.0) == []
    life.handle(ev.LoadFailed(E1, "no such file", retryable=False), 1.0)
    assert life.handle(ev.ModelFileChanged(), 1.0) == []
    life.handle(ev.Exited(E1, KILLED), 1.0)
    assert life.state is WorkerState.FAILED
    assert ev.Spawn(E2, Reason.LOAD_FAILED) in life.handle(ev.ModelFileChanged(), 2.0)


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


class AnyOrder(RuleBasedStateMachine):
    """Whatever the order, and whatever of it is late: no defect, one process, every loss told."""

    is_placed = False

    def __init__(self) -> None:
        super().__init__()
        self.life = lifecycle(restart_limit=4, is_placed=self.is_placed)
        self.now = 0.0
        self.process: Epoch | None = None
        self.reported = False
        self.timers: dict[ev.TimerKind, int] = {}
        self.stops_for_good = False
        self.latest = Epoch(0)
        self.do(ev.StartRequested())

    def do(self, event: ev.Event) -> list[ev.Action]:
        self.now += 0.1
        had_failed = self.life.state is WorkerState.FAILED
        actions = self.life.handle(event, self.now)
        for action in actions:
            match action:
                case ev.Spawn():
                    assert self.process is None
                    assert action.epoch > self.latest
                    assert not self.stops_for_good
                    assert not had_failed or isinstance(
                        event, ev.RestartRequested | ev.ModelFileChanged
                    )
                    assert isinstance(event, ev.Placed) or not self.is_placed
                    self.process = self.latest = action.epoch
                case ev.Release():
                    assert self.process is None
                case ev.ReportReady():
                    assert not self.reported
                    self.reported = True
                case ev.ReportLost():
                    assert self.reported
                    self.reported = False
                case ev.SetTimer():
                    self.timers[action.kind] = action.generation
                case _:
                    pass
        return actions

    def some_epoch(self, late: bool) -> Epoch:
        return Epoch(self.life.epoch - 1) if late else self.life.epoch

    @rule()
    def asked_to_drain_out_of_turn(self) -> None:
        self.do(ev.DrainRequested())

    @rule(late=st.booleans(), n=st.integers(0, 9))
    def process_says(self, late: bool, n: int) -> None:
        epoch = self.some_epoch(late)
        said: list[ev.Event] = [
            ev.HelloReceived(epoch),
            ev.LoadProgress(epoch, self.now),
            ev.BecameReady(epoch, READY),
            ev.TokenProduced(epoch),
            ev.LoadFailed(epoch, "", retryable=bool(self.life.epoch % 2)),
            ev.LinkBroken(epoch, ""),
            ev.DeclaredHung(epoch, ""),
            ev.EngineBroke(epoch, "", ()),
            ev.TrialPassed(epoch),
            ev.TrialFailed(epoch, ""),
        ]
        if late:
            assert self.do(said[n]) == []
        elif self.process is not None:
            self.do(said[n])

    @rule()
    @precondition(lambda self: self.life.state is WorkerState.STARTING)
    def comes_up(self) -> None:
        self.do(ev.HelloReceived(self.life.epoch))

    @rule()
    @precondition(lambda self: self.life.state is WorkerState.LOADING)
    def loads(self) -> None:
        self.do(ev.BecameReady(self.life.epoch, READY))

    @rule()
    @precondition(lambda self: self.life.state is WorkerState.TRYING)
    def computes_its_trial(self) -> None:
        self.do(ev.TrialPassed(self.life.epoch))

    @rule()
    def has_another_file(self) -> None:
        self.do(ev.ModelFileChanged())

    @rule()
    def is_adopted(self) -> None:
        self.do(ev.Adopted())

    @rule()
    @precondition(lambda self: self.process is not None)
    def dies(self) -> None:
        epoch, self.process = self.process, None
        assert epoch is not None
        self.do(ev.Exited(epoch, KILLED))

    @rule()
    @precondition(lambda self: self.process is not None)
    def crashes(self) -> None:
        epoch, self.process = self.process, None
        assert epoch is not None
        self.do(ev.Exited(epoch, CRASHED))

    @rule(is_refusal=st.booleans())
    @precondition(lambda self: self.process is not None)
    def never_began(self, is_refusal: bool) -> None:
        epoch, self.process = self.process, None
        assert epoch is not None
        self.do(ev.SpawnFailed(epoch, "", is_refusal))

    @rule(now=st.booleans())
    def asked_to_stop(self, now: bool) -> None:
        self.stops_for_good = True
        self.do(ev.StopRequested(now))

    @rule(now=st.booleans())
    def asked_to_restart(self, now: bool) -> None:
        if self.life.state is not WorkerState.STOPPING:  # a stop is stronger than a restart
            self.stops_for_good = False
        self.do(ev.RestartRequested(now))

    @rule()
    @precondition(lambda self: self.life.state is WorkerState.READY)
    def asked_to_drain(self) -> None:
        self.do(ev.DrainRequested())

    @rule(count=st.integers(1, 5))
    def dispatch_says(self, count: int) -> None:
        self.do(ev.DeathsExplained(count))

    @rule(restarts=st.integers(0, 9))
    def takes_over(self, restarts: int) -> None:
        self.do(ev.TookOver(restarts, KILLED))

    @rule(kind=st.sampled_from(ev.TimerKind), late=st.integers(0, 1))
    def time_passes(self, kind: ev.TimerKind, late: int) -> None:
        if kind in self.timers:
            self.do(ev.TimerFired(kind, self.timers[kind] - late))

    @invariant()
    def there_is_a_process_exactly_where_the_state_says_so(self) -> None:
        assert (self.process is not None) == (self.life.state in HAS_PROCESS)

    @invariant()
    def who_was_reported_ready_serves(self) -> None:
        assert self.reported == (self.life.state in SERVING)

    @invariant()
    def who_has_failed_or_waits_says_why(self) -> None:
        if self.life.state in {WorkerState.FAILED, WorkerState.BACKOFF}:
            assert self.life.detail
            assert self.life.last_exit is not None

    @invariant()
    def what_waits_has_a_timer(self) -> None:
        waits = {
            WorkerState.STARTING: ev.TimerKind.START,
            WorkerState.LOADING: ev.TimerKind.LOAD,
            WorkerState.TRYING: ev.TimerKind.TRIAL,
            WorkerState.STOPPING: ev.TimerKind.LADDER,
            WorkerState.BACKOFF: ev.TimerKind.BACKOFF,
        }
        kind = waits.get(self.life.state)
        assert kind is None or kind in self.timers


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(stateful_step_count=40)


class AnyOrderPlaced(AnyOrder):
    """The same on other machines, some of which vanish."""

    is_placed = True

    @rule()
    def finds_a_machine(self) -> None:
        self.do(ev.Placed(self.life.epoch))

    @rule()
    def awaits_a_machine(self) -> None:
        self.do(ev.MachineAwaited(self.life.epoch, "a machine"))

    @rule()
    def a_machine_prepares(self) -> None:
        self.do(ev.MachinePrepares(self.life.epoch, "a: copying"))

    @rule()
    @precondition(lambda self: self.process is not None)
    def is_misplaced(self) -> None:
        epoch, self.process = self.process, None
        assert epoch is not None
        self.do(ev.SpawnFailed(epoch, "no such file", is_misplaced=True))

    @rule(reason=st.sampled_from(sorted(WITH_ITS_MACHINE)))
    @precondition(lambda self: self.process is not None)
    def loses_its_machine(self, reason: Reason) -> None:
        epoch, self.process = self.process, None
        assert epoch is not None
        self.do(ev.Exited(epoch, ExitReason(reason=reason, at=0.0)))


TestAnyOrderPlaced = AnyOrderPlaced.TestCase
TestAnyOrderPlaced.settings = settings(stateful_step_count=40)
