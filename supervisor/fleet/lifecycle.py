"""The life of one line of worker processes. Pure: events in, actions out (`events.py`).

`runner.py` is the only owner: it feeds events one at a time and executes the actions in order. The
legal moves are in `states.MOVES`, and DESIGN.md has them as a table.
"""

from collections import deque
from collections.abc import Callable
from typing import NoReturn, assert_never

import msgspec

from gpufc.ids import Epoch
from gpufc.protocol import Ready
from supervisor.fleet import events as ev
from supervisor.fleet.exit_reason import FROM_OUTSIDE, WITH_ITS_MACHINE, ExitReason, Reason
from supervisor.fleet.ladder import Ladder, Ladders, Timings
from supervisor.fleet.lifecycle_terms import After, IllegalMove, LineState, Shortage, Timers
from supervisor.fleet.restart_policy import GiveUp, RestartAfter, RestartPolicy
from supervisor.fleet.states import AT_REST, HAS_PROCESS, MOVES, SERVING, UP, WorkerState

HISTORY = 50

_PLACING = (WorkerState.PLACING, "looking for a machine")
_STARTING = (WorkerState.STARTING, "starting")


class WorkerLifecycle(LineState):
    """One line of processes. Invariants: at most one process; each ready one is lost exactly once.
    A process is ready only if the engine has passed its trial since it was last in doubt.

    Only `handle` changes it; the attributes are for reading. `next_epoch` returns a number that no
    process had before. `unix_offset_s` plus `now` is unix time. With `is_placed` each process first
    needs a machine (PLACING).
    """

    def __init__(
        self,
        policy: RestartPolicy,
        timings: Timings,
        next_epoch: Callable[[], Epoch],
        *,
        unix_offset_s: float = 0.0,
        is_placed: bool = False,
    ) -> None:
        super().__init__()
        self._policy = policy
        self._timings = timings
        self._ladders = Ladders(timings)
        self._next_epoch = next_epoch
        self._unix_offset_s = unix_offset_s
        self._is_placed = is_placed
        self._replaces: Reason | None = None
        self._is_awaited = False
        self._avoid = ""
        self._has_served = False
        self._produced_token = False
        self._is_proven = False
        self._was_refused = False
        self._cause: ExitReason | None = None
        self._after = After.ASK_POLICY
        self._ladder: Ladder = ()
        self._timers = Timers()
        self._now = 0.0
        self._actions: list[ev.Action] = []
        self._history: deque[str] = deque(maxlen=HISTORY)

    @property
    def giving_up(self) -> Reason | None:
        """Why the process is being ended; None unless STOPPING."""
        return self._cause.reason if self._cause and self.state is WorkerState.STOPPING else None

    def handle(self, event: ev.Event, now: float) -> list[ev.Action]:
        """The actions that an event causes. `now` is monotonic seconds. Raises `IllegalMove`."""
        self._now, self._actions = now, []
        self._history.append(f"{now:.3f} {self.state} epoch={self.epoch}: {event!r}")
        match event:
            case ev.StartRequested() | ev.DrainRequested():
                self._start_or_drain(event)
            case ev.StopRequested():
                self._stop(event.reason, now=event.now)
            case ev.TookOver():
                self.restarts, self.last_exit = event.restarts, event.last_exit
            case ev.Adopted():
                self._is_proven = True
            case ev.ModelFileChanged():
                if self.state is WorkerState.FAILED:
                    self._restart(now=False)
            case ev.DeathsExplained():
                self._policy.forgive(event.count)
            case ev.RestartRequested():
                self._restart(now=event.now)
            case ev.TimerFired():
                self._timer(event)
            case _:
                if event.epoch == self.epoch:  # events of an earlier process do not count
                    self._process_event(event)
        return self._actions

    # requests

    def _start_or_drain(self, event: ev.StartRequested | ev.DrainRequested) -> None:
        if isinstance(event, ev.StartRequested):
            if self.state not in AT_REST:
                self._defect("start of a running worker")
            self._is_awaited = event.is_awaited
            self._start()
        elif self.state is WorkerState.READY:
            self._move(WorkerState.DRAINING, "draining")

    def _stop(self, reason: Reason, *, now: bool) -> None:
        if self.state in UP:
            self._end(reason, "", self._ladder_for(now=now), After.STAY_STOPPED)
        elif self.state is WorkerState.STOPPING:
            self._after = After.STAY_STOPPED
            if now:
                self._climb(self._ladders.kill)
        elif self.state is not WorkerState.STOPPED:
            self._move(WorkerState.STOPPED, "stopped")

    def _restart(self, *, now: bool) -> None:
        self._policy.reset()
        self._is_proven = False
        if self.state in UP:
            self._end(Reason.RESTARTED, "", self._ladder_for(now=now), After.START)
        elif self.state is WorkerState.STOPPING:
            if self._after is not After.STAY_STOPPED:  # a stop is stronger than a restart
                self._after = After.START
            if now:
                self._climb(self._ladders.kill)
        elif self.state is not WorkerState.PLACING:
            self._start()

    def _ladder_for(self, *, now: bool) -> Ladder:
        if now:
            return self._ladders.kill
        return self._ladders.ask if self.state in SERVING else self._ladders.terminate

    # events of a process

    def _process_event(self, event: ev.ProcessEvent) -> None:
        match event:
            case ev.Placed():
                if self.state is WorkerState.PLACING:
                    self._spawn()
            case ev.MachineAwaited() | ev.MachinePrepares():
                if self.state is WorkerState.PLACING:
                    self.detail = event.detail
                    self.awaits_machine = isinstance(event, ev.MachineAwaited)
                    self._actions.append(ev.Publish())
            case ev.Spawned():
                self.pid = event.pid
                self._policy.spawned()
            case ev.SpawnFailed():
                self._spawn_failed(event)
            case ev.Exited():
                self._gone(event.reason)
            case ev.Ending():
                if self.state in SERVING:  # others lose no stream by waiting for its end
                    self._end_by(event.reason, self._ladders.kill, After.ASK_POLICY)
            case _ if self.state not in UP:
                pass  # the process has been given up or has ended: its last messages
            case ev.HelloReceived():
                self._hello()
            case ev.LoadProgress():
                self._progress(event.fraction)
            case ev.BecameReady():
                self._became_ready(event.ready)
            case ev.LoadFailed():
                for_good = After.ELSEWHERE if self._is_placed else After.FAIL
                after = After.ASK_POLICY if event.retryable else for_good
                self.shortage = Shortage(event.needed_bytes, event.available_bytes)
                self._end(Reason.LOAD_FAILED, event.detail, self._ladders.ask, after)
            case ev.TrialPassed():
                if self.state is WorkerState.TRYING:
                    self._is_proven = True
                    self._actions.append(ev.ReportProven())
                    self._serve()
            case ev.TrialFailed():
                if self.state is WorkerState.TRYING:
                    self._fail_trial(event.detail)
            case ev.TokenProduced():
                # before READY a token does not show that the worker works
                self._produced_token = self.state in SERVING
            case ev.LinkBroken():
                after = After.ASK_POLICY if event.retryable else After.FAIL
                self._end(Reason.PROTOCOL_ERROR, event.detail, self._ladders.kill, after)
            case ev.EngineBroke():
                when = "its trial failed: " if self.state is WorkerState.TRYING else ""
                cause = self._reason(Reason.DECODE_FAILED, when + event.detail)
                cause = msgspec.structs.replace(cause, requests=event.requests)
                self._end_by(cause, self._ladders.ask, After.ASK_POLICY)
            case ev.DeclaredHung():
                cause = self._reason(Reason.HUNG, event.detail)
                cause = msgspec.structs.replace(cause, questions=event.questions)
                self._end_by(cause, self._ladders.dump, After.ASK_POLICY)
            case _:
                assert_never(event)

    def _hello(self) -> None:
        if self.state is WorkerState.STARTING:
            self._move(WorkerState.LOADING, "loading the model")
            self._set_timer(ev.TimerKind.LOAD, self._timings.load_s)
        else:
            self._broke_protocol("a second hello")

    def _progress(self, fraction: float) -> None:
        if self.state is WorkerState.LOADING and fraction > self.loading_fraction:
            self.loading_fraction = fraction
            self._set_timer(ev.TimerKind.LOAD, self._timings.load_s)
            self._actions.append(ev.Publish())

    def _became_ready(self, ready: Ready) -> None:
        if self.state is not WorkerState.LOADING:
            self._broke_protocol("ready out of turn")
            return
        self.ready = ready
        self.loading_fraction = 1.0
        if self._is_proven:
            self._serve()
        else:
            self._move(WorkerState.TRYING, "computing its trial")
            self._actions.append(ev.BeginTrial(ready))
            self._set_timer(ev.TimerKind.TRIAL, self._timings.trial_s)

    def _serve(self) -> None:
        if self.ready is None:
            self._defect("ready without the facts of a model")
        self._has_served = True
        self._actions.append(ev.ReportReady(self.ready))
        self._move(WorkerState.READY, "")

    def _fail_trial(self, detail: str) -> None:
        self._end(
            Reason.TRIAL_FAILED, f"its trial failed: {detail}", self._ladders.ask, After.ASK_POLICY
        )

    def _broke_protocol(self, detail: str) -> None:
        self._end(Reason.PROTOCOL_ERROR, detail, self._ladders.kill, After.ASK_POLICY)

    def _timer(self, event: ev.TimerFired) -> None:
        if not self._timers.counts(event):
            return  # the timer was replaced, or its state was left
        match event.kind:
            case ev.TimerKind.START:
                detail = f"no hello within {self._timings.start_s:g} s"
                self._end(Reason.START_TIMEOUT, detail, self._ladders.dump, After.ASK_POLICY)
            case ev.TimerKind.LOAD:
                detail = f"no progress in loading for {self._timings.load_s:g} s"
                self._end(Reason.LOAD_TIMEOUT, detail, self._ladders.dump, After.ASK_POLICY)
            case ev.TimerKind.TRIAL:
                self._fail_trial(f"it did not end within {self._timings.trial_s:g} s")
            case ev.TimerKind.LADDER:
                self._climb(self._ladder)
            case ev.TimerKind.BACKOFF:
                self._start()
            case _:
                assert_never(event.kind)

    # moves

    def _start(self) -> None:
        was_unloaded = self.last_exit is not None and self.last_exit.reason is Reason.UNLOADED
        is_replacement = self.epoch != 0 and not (self._was_refused or was_unloaded)
        if was_unloaded:
            self._policy.reset()
        self._replaces = self.last_exit.reason if self.last_exit and is_replacement else None
        self._is_awaited |= is_replacement  # and stays so when the start is refused
        self._move(*_PLACING if self._is_placed else _STARTING)
        self.restarts += is_replacement
        self._was_refused = False
        self.epoch = self._next_epoch()
        self.pid = None
        self.ready = None
        self.loading_fraction = 0.0
        self._has_served = False
        self._produced_token = False
        self._cause = None
        if self._is_placed:
            self._actions.append(ev.Place(self.epoch, self._avoid))
            self._avoid = ""
        else:
            self._spawn()

    def _spawn(self) -> None:
        if self.state is not WorkerState.STARTING:
            self._move(*_STARTING)
        self._actions.append(ev.Spawn(self.epoch, self._replaces, self._is_awaited))
        self._set_timer(ev.TimerKind.START, self._timings.start_s)

    def _end(self, reason: Reason, detail: str, ladder: Ladder, after: After) -> None:
        self._end_by(self._reason(reason, detail), ladder, after)

    def _end_by(self, cause: ExitReason, ladder: Ladder, after: After) -> None:
        """Give the process up, and begin to end it."""
        self._cause = cause
        self._after = after
        if self.state in SERVING:
            self._actions.append(ev.ReportLost(self._cause))
        self._move(WorkerState.STOPPING, str(self._cause))
        self._climb(ladder)

    def _climb(self, ladder: Ladder) -> None:
        """Execute the next rung; the last one is repeated until the process has ended."""
        actions, wait_s = ladder[0]
        self._ladder = ladder[1:] or ladder
        self._actions.extend(actions)
        self._set_timer(ev.TimerKind.LADDER, wait_s)

    def _spawn_failed(self, event: ev.SpawnFailed) -> None:
        seen = self._reason(Reason.SPAWN_FAILED, event.detail)
        if event.is_misplaced and self.state is WorkerState.STARTING:
            self.last_exit = seen
            self._actions.append(ev.Release(self.epoch))
            self._start_elsewhere(event.detail)
            return
        if not event.is_refusal or self.state is not WorkerState.STARTING:
            self._gone(seen)
            return
        self._was_refused = True
        self.last_exit = seen
        self._actions.append(ev.Release(self.epoch))
        self._wait(self._policy.refused().delay_s, f"the system refuses a start: {event.detail}")

    def _start_elsewhere(self, detail: str) -> None:
        """Its machine was at fault, so the next start is no restart."""
        self._was_refused = True
        self._avoid = detail
        self._start()

    def _gone(self, seen: ExitReason) -> None:
        """The process has ended, or never began."""
        if self.state not in HAS_PROCESS:
            self._defect("end of a process that is gone")
        self.last_exit = seen
        if self._cause is not None:
            self.last_exit = msgspec.structs.replace(
                self._cause, signal=seen.signal, code=seen.code, at=seen.at
            )
        if self.state in SERVING:
            self._actions.append(ev.ReportLost(self.last_exit))
        self._is_proven &= self.last_exit.reason in FROM_OUTSIDE
        self._actions.append(ev.Release(self.epoch))
        after = self._after if self.state is WorkerState.STOPPING else After.ASK_POLICY
        match after:
            case After.STAY_STOPPED:
                self._move(WorkerState.STOPPED, "stopped")
            case After.START:
                self._start()
            case After.FAIL:
                self._move(WorkerState.FAILED, str(self.last_exit))
            case After.ELSEWHERE:
                self._start_elsewhere(self.last_exit.detail)
            case After.ASK_POLICY if self.last_exit.reason in WITH_ITS_MACHINE:
                self._start()
            case After.ASK_POLICY:
                self._ask_policy(self.last_exit)
            case _:
                assert_never(after)

    def _ask_policy(self, exit_: ExitReason) -> None:
        decision = self._policy.died(
            self._now, was_ready=self._has_served, produced_token=self._produced_token
        )
        match decision:
            case GiveUp():
                self._move(WorkerState.FAILED, f"{decision.detail}; last: {exit_}")
            case RestartAfter(delay_s=0.0):
                self._start()
            case RestartAfter():
                self._wait(decision.delay_s, str(exit_))
            case _:
                assert_never(decision)

    def _wait(self, delay_s: float, reason: str) -> None:
        self._move(WorkerState.BACKOFF, f"{reason}; next start in {delay_s:.1f} s")
        self.retry_at = self._now + delay_s
        self._set_timer(ev.TimerKind.BACKOFF, delay_s)

    def _move(self, to: WorkerState, detail: str) -> None:
        if to not in MOVES[self.state]:
            self._defect(f"{self.state} → {to}")
        if self.state is WorkerState.PLACING:
            self.awaits_machine = False
            if to is not WorkerState.STARTING:
                self._actions.append(ev.Unplace())
        self.state = to
        self.since = self._now
        self.detail = detail
        self.retry_at = None
        self._timers.clear()
        if to in AT_REST:
            self.pid = None
        self._actions.append(ev.Publish())

    def _defect(self, what: str) -> NoReturn:
        raise IllegalMove(f"{what} after:\n" + "\n".join(self._history))

    def _set_timer(self, kind: ev.TimerKind, delay_s: float) -> None:
        self._actions.append(self._timers.begin(kind, delay_s))

    def _reason(self, reason: Reason, detail: str) -> ExitReason:
        return ExitReason(reason=reason, at=self._now + self._unix_offset_s, detail=detail)
