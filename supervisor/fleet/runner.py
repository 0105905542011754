"""Runs one lifecycle against the machine: feeds it events one at a time, executes its actions.

Owns the process, link and timers of one line of processes. Every other part posts events. The
messages of a worker's sequences (`Step` and the like) skip the queue. They go from the link to the
listener in the same call, between `worker_ready` and `worker_lost` and at no other time.
"""

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Callable

from gpufc.errors import LinkError
from gpufc.ids import Epoch
from gpufc.protocol import (
    Attach,
    Embedded,
    FromWorker,
    Heartbeat,
    Hello,
    KvMoved,
    Ready,
    Shutdown,
    Step,
)
from supervisor.fleet import events as ev
from supervisor.fleet import refusal
from supervisor.fleet.edge import Edge, Link
from supervisor.fleet.exit_reason import ASKED, ExitReason, Reason
from supervisor.fleet.followed import Lent
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.line import Line
from supervisor.fleet.model_files import Stamp, stamps
from supervisor.fleet.observation import Observation
from supervisor.fleet.placer import PlaceListener, Placer
from supervisor.fleet.port import FleetListener, WorkerMessage
from supervisor.fleet.states import COMING_UP
from supervisor.fleet.step_rate import StepRate
from supervisor.fleet.trial import Trial
from supervisor.fleet.watchdog import LIMITS, Verdict, WatchLimits
from supervisor.fleet.worker import Hooks, Worker, WorkerSpec

logger = logging.getLogger(__name__)

LAST_WORDS_S = 0.03
"""A worker that cannot load says why and ends. Its exit may be noticed before that message has come
through the socket, and without the message a broken file would look like a crash."""


class WorkerRunner(Line):
    """One line of processes. `run` is its task, and the only one that changes the lifecycle."""

    def __init__(
        self,
        spec: WorkerSpec,
        lifecycle: WorkerLifecycle,
        edge: Edge,
        listener: FleetListener,
        hooks: Hooks | None = None,
        limits: WatchLimits = LIMITS,
        placer: Placer | None = None,
        device_limit: Callable[["WorkerRunner"], int | None] = lambda _: None,
    ) -> None:
        """`placer` for a line whose processes run on other machines. `device_limit` gives what the
        next process may take of each GPU."""
        super().__init__(spec, lifecycle)
        self._edge = edge
        self._placer = placer
        self._device_limit = device_limit
        self._listener = listener
        self._hooks = hooks or Hooks()
        self._limits = limits
        self._rate = StepRate()
        self._events: asyncio.Queue[ev.Event] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._timers: dict[ev.TimerKind, asyncio.TimerHandle] = {}
        self._link: Link | None = None
        self._log_mark = 0
        self.model_files: tuple[Stamp, ...] = ()
        """The model's files as the last start found them."""
        self._trial: tuple[Trial, Worker] | None = None
        self._token_seen = False

    def post(self, event: ev.Event) -> None:
        """Let the lifecycle handle an event, after all events posted before."""
        self._events.put_nowait(event)

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition that only this runner's events can change."""
        while not holds() and self.defect is None:
            await self._changed.wait()

    async def run(self) -> None:
        """Handle events until cancelled. A defect ends this runner, never the front."""
        try:
            while True:
                self._handle(await self._events.get())
        except Exception as err:  # the boundary: other workers and the front go on
            logger.exception("worker_given_up_by_a_defect worker=%s", self.spec.name)
            self._collapse(f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''}")
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def close(self) -> None:
        """After `run` has ended: close the descriptors of a process that cannot be ended."""
        self._release()

    # another front takes over

    def lend(self) -> Lent | None:
        """The descriptors of its process, to be copied; None without one."""
        return self._process.lend() if self._process else None

    def hand_over(self, successor: Epoch, endpoint: str, token: str) -> None:
        """Tell the process to attach to another front; to this one it is lost. `run` must have been
        cancelled."""
        if self._link is not None:
            self._link.send(Attach(self._lifecycle.epoch, successor, endpoint, token))
        self.leave()

    def leave(self) -> None:
        """To this front the process is lost."""
        if self._seen is not None:
            self._seen.close()
        self._report_lost(ExitReason(reason=Reason.HANDED_OVER, at=time.time()))

    def let_go(self) -> None:
        """The other front has the process."""
        if self._process is not None:
            self._process.let_go()
        self._release()

    # events in

    def _handle(self, event: ev.Event) -> None:
        before = self._lifecycle.state
        is_end = isinstance(event, ev.Exited) and event.epoch == self._lifecycle.epoch
        actions = self._lifecycle.handle(event, time.monotonic())
        if is_end:
            self._record_end()
        for action in actions:
            self._execute(action)
        if self._lifecycle.state is not before:
            self._log_state()
        self._wake()

    def _on_message(self, message: FromWorker) -> None:
        """A message from the link. Steps first: nearly all messages are steps."""
        if type(message) is Step:
            self._on_step(message)
            return
        seen = self._seen
        if seen is not None:
            seen.beat(message) if isinstance(message, Heartbeat) else seen.heard(message)
        if isinstance(message, KvMoved):
            if self.worker is not None:
                self.worker.kv_moved(message)
        elif (event := ev.of_message(message)) is not None:
            if isinstance(message, Hello) and self._lifecycle.pid is None:
                self.post(ev.Spawned(message.epoch, message.pid))  # on another machine
            self.post(event)
        elif isinstance(message, WorkerMessage):
            if isinstance(message, Embedded) and self.worker is not None:
                self._note_token(message.epoch)
            self._forward(message)

    def _on_step(self, step: Step) -> None:
        if self._seen is not None:
            self._seen.stepped(step)
        if self.worker is not None:
            self._note_progress(step)
        self._forward(step)

    def _note_progress(self, step: Step) -> None:
        self._last_step_at = time.time()
        if not self._token_seen and any(delta.tokens for delta in step.deltas):
            self._note_token(step.epoch)

    def _note_token(self, epoch: Epoch) -> None:
        """The engine has computed something for a client."""
        if not self._token_seen:
            self._token_seen = True
            self.post(ev.TokenProduced(epoch))

    def _forward(self, message: WorkerMessage) -> None:
        if self.worker is not None:
            self._listener.worker_message(self.worker, message)
        elif self._trial is not None:
            trial, worker = self._trial
            trial.feed(worker, message)
        else:
            logger.debug("message_dropped reason=does_not_serve worker=%s", self.spec.name)

    def _on_broken(self, epoch: Epoch) -> Callable[[str, bool], None]:
        return lambda detail, retryable: self.post(ev.LinkBroken(epoch, detail, retryable))

    def _on_hung(self, epoch: Epoch) -> Callable[[Verdict], None]:
        def hung(verdict: Verdict) -> None:
            logger.error("worker_hung worker=%s epoch=%d: %s", self.spec.name, epoch, verdict)
            self.post(ev.DeclaredHung(epoch, verdict.detail, verdict.questions))

        return hung

    def _on_exit(self, epoch: Epoch) -> Callable[[ExitReason], None]:
        def ended(reason: ExitReason) -> None:
            if self._lifecycle.epoch == epoch and self._lifecycle.state in COMING_UP:
                asyncio.get_running_loop().call_later(LAST_WORDS_S, report, reason)
            else:
                report(reason)

        def report(reason: ExitReason) -> None:
            if self._link is not None and self._lifecycle.epoch == epoch:
                self._link.drain_now()
            if reason.reason is Reason.SPAWN_FAILED:
                self.post(ev.SpawnFailed(epoch, reason.detail, is_misplaced=True))
            else:
                self.post(ev.Exited(epoch, reason))

        return ended

    def _on_ending(self, epoch: Epoch) -> Callable[[ExitReason], None]:
        def ending(reason: ExitReason) -> None:
            if self._link is not None and self._lifecycle.epoch == epoch:
                self._link.drain_now()
            self.post(ev.Ending(epoch, reason))

        return ending

    # actions out

    def _execute(self, action: ev.Action) -> None:
        match action:
            case ev.Place():
                self._place(action)
            case ev.Unplace():
                if self._placer is not None:
                    self._placer.unplace()
            case ev.Spawn():
                self._spawn(action)
            case ev.SendShutdown():
                if self._link is not None:
                    self._link.send(Shutdown(self._lifecycle.epoch))
            case ev.Signal():
                if self._process is not None:
                    self._process.signal(action.signal, group=action.group)
            case ev.SetTimer():
                self._set_timer(action)
            case ev.BeginTrial():
                self._begin_trial(action.ready)
            case ev.ReportProven():
                if self._trial is not None:
                    self._listener.engine_proven(self._trial[1])
            case ev.ReportReady():
                self._report_ready(action.ready)
            case ev.ReportLost():
                self._report_lost(action.reason)
            case ev.Release():
                self._release()
            case ev.Publish():
                self._listener.condition_changed()

    def _place(self, action: ev.Place) -> None:
        epoch = action.epoch
        told = PlaceListener(
            found=lambda: self.post(ev.Placed(epoch)),
            awaits=lambda text: self.post(ev.MachineAwaited(epoch, text)),
            prepares=lambda text: self.post(ev.MachinePrepares(epoch, text)),
        )
        if self._placer is None:
            raise AssertionError("nothing finds machines")
        self._placer.place(epoch, self.spec, told, action.avoid)

    def _spawn(self, action: ev.Spawn) -> None:
        if action.replaces is not None:
            self._hooks.restarted(action.replaces)
        epoch, spec = action.epoch, self.spec
        self._token_seen = False
        self.model_files = stamps(spec.config)
        token = secrets.token_hex(16)
        try:
            self._link = self._edge.open_link(
                epoch, token, on_message=self._on_message, on_broken=self._on_broken(epoch)
            )
            self._process = self._edge.spawn(
                spec.name, self._on_exit(epoch), self._on_ending(epoch)
            )
        except OSError as err:
            is_refusal = refusal.is_by_system(err)
            logger.warning("worker_not_started worker=%s: %s", spec.name, err)
            self.post(ev.SpawnFailed(epoch, str(err), is_refusal))
            return
        self._log_mark = self._edge.log_mark(spec.name)
        self._seen = Observation(
            self._process, epoch, spec.config, self._rate, self._on_hung(epoch), self._limits
        )
        if (pid := self._process.pid) is not None:
            self.post(ev.Spawned(epoch, pid))
            self._link.expect(pid)
        limit = self._device_limit(self)
        try:
            endpoint, is_awaited = self._link.endpoint, action.is_awaited
            self._process.boot(spec.boot(epoch, endpoint, token, limit, is_awaited=is_awaited))
        except LinkError as err:
            self.post(ev.LinkBroken(epoch, str(err), retryable=False))

    def _set_timer(self, action: ev.SetTimer) -> None:
        before = self._timers.pop(action.kind, None)
        if before is not None:
            before.cancel()
        fired = ev.TimerFired(action.kind, action.generation)
        loop = asyncio.get_running_loop()
        self._timers[action.kind] = loop.call_later(action.delay_s, self.post, fired)

    def _handle_of(self, ready: Ready) -> Worker:
        """The loaded process as a handle. The watchdog expects it to compute from now on."""
        link, seen = self._link, self._seen
        if link is None or seen is None:
            raise AssertionError("ready without a process")
        seen.serves(ready)
        self._last_facts = ready.facts
        epoch, drained = self._lifecycle.epoch, self._hooks.drained
        facts, machine = ready.facts, self.machine
        return Worker(self.spec, self.line, epoch, facts, link, seen, self.post, drained, machine)

    def _begin_trial(self, ready: Ready) -> None:
        worker = self._handle_of(ready)
        epoch = worker.epoch

        def settled(failure: str | None) -> None:
            passed = failure is None
            self.post(ev.TrialPassed(epoch) if passed else ev.TrialFailed(epoch, failure or ""))

        trial = Trial(settled)
        self._trial = (trial, worker)
        trial.begin(worker)

    def _report_ready(self, ready: Ready) -> None:
        worker = self.worker = self._trial[1] if self._trial else self._handle_of(ready)
        self._trial = None
        if self._process is not None:
            self._process.watch_end()
        self._listener.worker_ready(worker)
        self._hooks.became_ready(not self._lifecycle.restarts)

    def _report_lost(self, reason: ExitReason) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.lost(str(reason))
            self._listener.worker_lost(worker, reason)

    def _release(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._seen is not None:
            self._seen.close()
        self._link = self._process = self._seen = self._trial = None

    def _record_end(self) -> None:
        """For the front's log and the flight recorder, before the next process writes to the same
        log."""
        end, seen, spec = self._lifecycle.last_exit, self._seen, self.spec
        if end is None or end.reason in ASKED or seen is None:
            return
        log = self._edge.log_since(spec.name, self._log_mark)
        # the lifecycle has the next process's epoch already
        record = seen.record(end, log, worker=spec.name, model=spec.model)
        process = record.worker, record.epoch, record.pid
        logger.warning("worker_ended worker=%s epoch=%d pid=%s: %s", *process, end)
        self._hooks.crashed(record)

    def _collapse(self, detail: str) -> None:
        """Kill the process, report it lost and show the defect as the reason."""
        self.defect = f"defect in the fleet: {detail}"
        if self._process is not None:
            self._process.signal(signal.SIGKILL, group=True)
        lost = ExitReason(reason=Reason.INTERNAL_ERROR, at=time.time(), detail=detail)
        self._report_lost(lost)
        self._release()
        self._listener.condition_changed()
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _log_state(self) -> None:
        life, detail = self._lifecycle, f": {self._lifecycle.detail}" * bool(self._lifecycle.detail)
        where = f"worker={self.spec.name} epoch={life.epoch} pid={life.pid}"
        logger.info("worker %s %s%s", life.state, where, detail)
