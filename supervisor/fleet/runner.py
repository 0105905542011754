"""Runs one lifecycle against the machine: feeds it events one at a time, does what it says.

Owns the place's process, link and timers. Whoever else has something to say posts an event. What
the worker's sequences bring (`Step` and the like) goes straight from the link to the listener,
without the queue, between `worker_ready` and `worker_lost` and at no other time.
"""

import asyncio
import itertools
import logging
import secrets
import signal
import time
from collections.abc import Callable

from gpufc.errors import LinkError
from gpufc.ids import Epoch
from gpufc.protocol import (
    Attach,
    Boot,
    FromWorker,
    Heartbeat,
    KvMoved,
    Ready,
    Shutdown,
    Step,
)
from supervisor.fleet import events as ev
from supervisor.fleet.edge import Edge, Link, Process
from supervisor.fleet.exit_reason import ASKED, ExitReason, Reason
from supervisor.fleet.lifecycle import COMING_UP, WorkerLifecycle
from supervisor.fleet.observation import Observation
from supervisor.fleet.port import FleetListener, WorkerMessage, WorkerStatus
from supervisor.fleet.step_rate import StepRate
from supervisor.fleet.watchdog import LIMITS, WatchLimits
from supervisor.fleet.worker import Hooks, Worker, WorkerSpec

logger = logging.getLogger(__name__)

LAST_WORDS_S = 0.03
"""A worker that cannot load says why and ends. Its exit may be noticed before its words have come
through the socket, and without them a broken file would look like a crash."""


_lines = itertools.count(1)


class WorkerRunner:
    """One place in the fleet. `run` is its task, the only one that touches the lifecycle."""

    def __init__(
        self,
        spec: WorkerSpec,
        lifecycle: WorkerLifecycle,
        edge: Edge,
        listener: Callable[[], FleetListener | None],
        hooks: Hooks | None = None,
        limits: WatchLimits = LIMITS,
    ) -> None:
        self.spec = spec
        self.line = next(_lines)
        self.lifecycle = lifecycle
        self.defect: str | None = None
        """Set when the runner itself has failed: it does nothing any more."""
        self.last_step_at: float | None = None
        self._edge = edge
        self._listener = listener
        self._hooks = hooks or Hooks()
        self._limits = limits
        self._rate = StepRate()
        self._events: asyncio.Queue[ev.Event] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._timers: dict[ev.TimerKind, asyncio.TimerHandle] = {}
        self._link: Link | None = None
        self._process: Process | None = None
        self._seen: Observation | None = None
        self._log_mark = 0
        self.worker: Worker | None = None
        """The ready process, from `worker_ready` to `worker_lost`."""
        self._token_seen = False

    def post(self, event: ev.Event) -> None:
        """Let the lifecycle handle an event, after those that were posted before."""
        self._events.put_nowait(event)

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition that only this place's events can change."""
        while not holds() and self.defect is None:
            await self._changed.wait()

    async def run(self) -> None:
        """Handle events until cancelled. A defect ends the place, never the front."""
        try:
            while True:
                self._handle(await self._events.get())
        except Exception as err:  # the boundary: other places and the front go on
            logger.exception("worker given up by a defect worker=%s", self.spec.name)
            self._collapse(f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''}")
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def close(self) -> None:
        """After `run` has ended: let go of what a process that cannot be ended still holds."""
        self._release()

    def status(self) -> WorkerStatus:
        """What the fleet knows of this place now."""
        life, seen = self.lifecycle, self._seen
        ready = life.ready
        return WorkerStatus(
            name=self.spec.name,
            pid=life.pid,
            epoch=life.epoch,
            state=life.state,
            detail=self.defect or life.detail,
            model=self.spec.model,
            model_path=self.spec.config.model_path,
            restarts=life.restarts,
            last_exit=life.last_exit,
            rss_bytes=self.rss_bytes,
            loading_fraction=life.loading_fraction,
            loaded_in_s=ready.loaded_in_s if ready else None,
            last_step_at=self.last_step_at,
            last_heartbeat_at=seen.heartbeat_at if seen else None,
            facts=ready.facts if ready else None,
            engine=seen.engine if seen else None,
        )

    @property
    def rss_bytes(self) -> int:
        """Resident memory of its process; 0 without one."""
        return self._process.rss_bytes() if self._process else 0

    # another front takes over

    def lend(self) -> tuple[int, int] | None:
        """The descriptors of its process, to be copied; None without one."""
        return self._process.lend() if self._process else None

    def hand_over(self, successor: Epoch, endpoint: str, token: str) -> None:
        """Tell the process to attach to another front; it is lost to this one. `run` must have
        been cancelled."""
        if self._link is not None:
            self._link.send(Attach(self.lifecycle.epoch, successor, endpoint, token))
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
        before = self.lifecycle.state
        is_end = isinstance(event, ev.Exited) and event.epoch == self.lifecycle.epoch
        actions = self.lifecycle.handle(event, time.monotonic())
        if is_end:
            self._record_end()
        for action in actions:
            self._execute(action)
        if self.lifecycle.state is not before:
            self._log_state()
        self._wake()

    def _on_message(self, message: FromWorker) -> None:
        """Everything that the link brings. Steps first: they are nearly all of it."""
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
            self.post(event)
        elif isinstance(message, WorkerMessage):
            self._forward(message)

    def _on_step(self, step: Step) -> None:
        if self._seen is not None:
            self._seen.stepped(step)
        if self.worker is not None:
            self._note_progress(step)
        self._forward(step)

    def _note_progress(self, step: Step) -> None:
        self.last_step_at = time.time()
        if not self._token_seen and any(delta.tokens for delta in step.deltas):
            self._token_seen = True
            self.post(ev.TokenProduced(step.epoch))

    def _forward(self, message: WorkerMessage) -> None:
        worker, listener = self.worker, self._listener()
        if worker is None or listener is None:
            logger.debug("message of a worker that does not serve worker=%s", self.spec.name)
            return
        try:
            listener.worker_message(worker, message)
        except Exception:  # the boundary: one request's trouble must not stop the link
            logger.exception("listener failed worker=%s", self.spec.name)

    def _on_broken(self, epoch: Epoch) -> Callable[[str, bool], None]:
        return lambda detail, retryable: self.post(ev.LinkBroken(epoch, detail, retryable))

    def _on_hung(self, epoch: Epoch) -> Callable[[str], None]:
        def hung(verdict: str) -> None:
            logger.error("worker hung worker=%s epoch=%d: %s", self.spec.name, epoch, verdict)
            self.post(ev.DeclaredHung(epoch, verdict))

        return hung

    def _on_exit(self, epoch: Epoch) -> Callable[[ExitReason], None]:
        def ended(reason: ExitReason) -> None:
            if self.lifecycle.epoch == epoch and self.lifecycle.state in COMING_UP:
                asyncio.get_running_loop().call_later(LAST_WORDS_S, report, reason)
            else:
                report(reason)

        def report(reason: ExitReason) -> None:
            if self._link is not None and self.lifecycle.epoch == epoch:
                self._link.drain_now()
            self.post(ev.Exited(epoch, reason))

        return ended

    # actions out

    def _execute(self, action: ev.Action) -> None:
        match action:
            case ev.Spawn():
                self._spawn(action)
            case ev.SendShutdown():
                if self._link is not None:
                    self._link.send(Shutdown(self.lifecycle.epoch))
            case ev.Signal():
                if self._process is not None:
                    self._process.signal(action.signal, group=action.group)
            case ev.SetTimer():
                self._set_timer(action)
            case ev.ReportReady():
                self._report_ready(action.ready)
            case ev.ReportLost():
                self._report_lost(action.reason)
            case ev.Release():
                self._release()
            case ev.Publish():
                self._tell(lambda listener: listener.condition_changed())

    def _spawn(self, action: ev.Spawn) -> None:
        if action.replaces is not None:
            self._hooks.restarted(action.replaces)
        epoch, spec = action.epoch, self.spec
        self._token_seen = False
        token = secrets.token_hex(16)
        try:
            self._link = self._edge.open_link(
                epoch, token, on_message=self._on_message, on_broken=self._on_broken(epoch)
            )
            self._process = self._edge.spawn(spec.name, self._on_exit(epoch))
        except OSError as err:
            self.post(ev.SpawnFailed(epoch, str(err)))
            return
        self._log_mark = self._edge.log_mark(spec.name)
        self._seen = Observation(
            self._process, spec.config, self._rate, self._on_hung(epoch), self._limits
        )
        self.post(ev.Spawned(epoch, self._process.pid))
        self._link.expect(self._process.pid)
        try:
            self._process.boot(
                Boot(
                    epoch=epoch,
                    worker=spec.name,
                    endpoint=self._link.endpoint,
                    token=token,
                    model=spec.config,
                    n_sequences=spec.n_sequences,
                    log_level=spec.log_level,
                )
            )
        except LinkError as err:
            self.post(ev.LinkBroken(epoch, str(err), retryable=False))

    def _set_timer(self, action: ev.SetTimer) -> None:
        before = self._timers.pop(action.kind, None)
        if before is not None:
            before.cancel()
        fired = ev.TimerFired(action.kind, action.generation)
        loop = asyncio.get_running_loop()
        self._timers[action.kind] = loop.call_later(action.delay_s, self.post, fired)

    def _report_ready(self, ready: Ready) -> None:
        link, seen = self._link, self._seen
        if link is None or seen is None:
            raise AssertionError("ready without a process")
        seen.serves(ready)
        worker = self.worker = Worker(
            self.spec,
            self.line,
            self.lifecycle.epoch,
            ready.facts,
            link,
            seen,
            self.post,
            self._hooks.drained,
        )
        self._tell(lambda listener: listener.worker_ready(worker))
        self._hooks.became_ready()

    def _report_lost(self, reason: ExitReason) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.kv_moved(KvMoved(worker.epoch, 0, 0, 0, 0.0, error=str(reason)))
            self._tell(lambda listener: listener.worker_lost(worker, reason))

    def _release(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._seen is not None:
            self._seen.close()
        self._link = self._process = self._seen = None

    def _record_end(self) -> None:
        """For the flight recorder, before the next process writes to the same log."""
        end, seen, spec = self.lifecycle.last_exit, self._seen, self.spec
        if end is None or end.reason in ASKED or seen is None:
            return
        log = self._edge.log_since(spec.name, self._log_mark)
        epoch = self.lifecycle.epoch
        self._hooks.crashed(seen.record(end, log, worker=spec.name, epoch=epoch, model=spec.model))

    def _tell(self, call: Callable[[FleetListener], None]) -> None:
        listener = self._listener()
        if listener is None:
            return
        try:
            call(listener)
        except Exception:  # the boundary: a listener's trouble must not stop the worker's life
            logger.exception("listener failed worker=%s", self.spec.name)

    def _collapse(self, detail: str) -> None:
        """Leave nothing behind, and say so."""
        self.defect = f"defect in the fleet: {detail}"
        if self._process is not None:
            self._process.signal(signal.SIGKILL, group=True)
        lost = ExitReason(reason=Reason.INTERNAL_ERROR, at=time.time(), detail=detail)
        self._report_lost(lost)
        self._release()
        self._tell(lambda listener: listener.condition_changed())
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _log_state(self) -> None:
        life = self.lifecycle
        logger.info(
            "worker %s worker=%s epoch=%d pid=%s%s",
            life.state,
            self.spec.name,
            life.epoch,
            life.pid,
            f": {life.detail}" if life.detail else "",
        )
