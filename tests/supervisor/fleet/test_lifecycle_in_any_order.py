"""A worker's lifecycle under events in any order."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpufc.ids import Epoch
from supervisor.fleet import events as ev
from supervisor.fleet.exit_reason import WITH_ITS_MACHINE, ExitReason, Reason
from supervisor.fleet.states import HAS_PROCESS, SERVING, WorkerState
from tests.supervisor.fleet.lives import CRASHED, KILLED, READY, lifecycle


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

    @rule(late=st.booleans())
    @precondition(lambda self: self.process is not None)
    def begins_to_end(self, late: bool) -> None:
        assert self.do(ev.Ending(self.some_epoch(late), KILLED)) == [] or not late

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
