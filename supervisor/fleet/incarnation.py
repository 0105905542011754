"""One line of worker processes in a place: its runner, and whether it is heard.

A place has several incarnations while one replaces another. The listener must hear each worker at
the right moment and in the right order: ready, messages, at most one draining, lost.
"""

import asyncio
import logging
from collections.abc import Callable

from gpufc.ids import Epoch
from supervisor.fleet import events as ev
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.port import FleetListener, WorkerHandle, WorkerMessage
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.worker import Worker, WorkerSpec
from supervisor.routing.canary import Canary

logger = logging.getLogger(__name__)

MakeRunner = Callable[[WorkerSpec, FleetListener, Callable[[], None]], WorkerRunner]
"""A runner of this spec that reports to this listener; the last is its `Hooks.drained`."""


class Incarnation:
    """A runner with its task, owned by one place. Implements `FleetListener` for the runner.

    Invariant: the listener hears nothing of a worker that is not heard, and every worker that it
    was told is ready it is told is lost, once. No method raises because the listener does.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        make: MakeRunner,
        listener: Callable[[], FleetListener | None],
        *,
        is_heard: bool,
        changed: Callable[[], None],
        lost: Callable[["Incarnation", ExitReason], None],
        welcome: Callable[[Worker], None] = lambda worker: None,
    ) -> None:
        """`changed` is called when a worker came or went. `lost` is called after the listener was
        told that a worker which it heard is gone. `welcome` is called before the listener is told
        that a worker which it hears is ready."""
        self.is_heard = is_heard
        self.runner = make(spec, self, self._end_drained)
        self._listener = listener
        self._changed = changed
        self._lost = lost
        self._welcome = welcome
        self._is_draining = False
        self._task: asyncio.Task[None] | None = None

    @property
    def worker(self) -> Worker | None:
        """The ready process, heard or not."""
        return self.runner.worker

    # its life

    def start(self, *, is_awaited: bool = False) -> None:
        """Begin to start a process. It must have none. `is_awaited`: requests wait for it."""
        if self._task is None:
            name = f"fleet {self.runner.spec.name}"
            self._task = asyncio.create_task(self.runner.run(), name=name)
        self.runner.post(ev.StartRequested(is_awaited))

    def announce(self) -> None:
        """Be heard from now on. The listener is told first of the worker that is ready."""
        if self.is_heard:
            return
        self.is_heard = True
        if (worker := self.worker) is not None:
            self._tell(lambda listener: listener.worker_ready(worker))

    def announce_canary(self, canary: Canary) -> None:
        """Be heard from now on, as a canary."""
        if (worker := self.worker) is not None:
            self._tell(lambda listener: listener.canary_began(worker, canary))
        self.announce()

    def withdraw(self) -> None:
        """Be heard no more. The worker that was heard must have been lost."""
        self.is_heard = False

    def drain(self) -> None:
        """Let its workers, this one and later ones, finish what has begun and begin nothing."""
        self._is_draining = True
        if self.worker is not None and self.is_heard:
            self._tell_draining(self.worker)

    def undrain(self) -> None:
        """Let the next worker take new requests again."""
        self._is_draining = False

    async def wait_stopped(self) -> None:
        """Wait until it has no process and will start none."""
        await self.runner.wait_until(lambda: self.runner.is_stopped)

    def hand_over(self, successor: Epoch, endpoint: str, token: str) -> None:
        """Send the process to another front. Its further life does not matter here."""
        if self._task is not None:
            self._task.cancel()
        self.runner.hand_over(successor, endpoint, token)

    def leave(self) -> None:
        """Its process goes to another front by itself, with its host."""
        if self._task is not None:
            self._task.cancel()
        self.runner.leave()

    async def close(self) -> None:
        """End the task and close the descriptors."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.runner.close()

    # reports of the runner (`port.FleetListener`)

    def worker_ready(self, worker: WorkerHandle) -> None:
        if self.is_heard:
            if self.worker is not None:
                self._welcome(self.worker)
            self._tell(lambda listener: listener.worker_ready(worker))
            if self._is_draining:
                self._tell_draining(worker)
        self._changed()

    def canary_began(self, worker: WorkerHandle, canary: Canary) -> None:
        """Never called by a runner: `announce_canary` tells it."""

    def worker_message(self, worker: WorkerHandle, message: WorkerMessage) -> None:
        """On the hot path."""
        if self.is_heard:
            listener = self._listener()
            if listener is not None:
                try:
                    listener.worker_message(worker, message)
                except Exception:  # the boundary: one request's trouble must not stop the link
                    logger.exception("listener_failed worker=%s", worker.name)

    def worker_draining(self, worker: WorkerHandle) -> None:
        """Never called by a runner: the place decides, by `drain`."""

    def worker_lost(self, worker: WorkerHandle, reason: ExitReason) -> None:
        if self.is_heard:
            self._lost(self, reason)  # may announce a hot spare, which then gets streams at once
            self._tell(lambda listener: listener.worker_lost(worker, reason))
        self._changed()

    def engine_proven(self, worker: WorkerHandle) -> None:
        """Passed on also while it is not heard: a spare proves the engine as well."""
        self._tell(lambda listener: listener.engine_proven(worker))

    def engine_renewed(self, model: str) -> None:
        """Never called by a runner: the fleet tells it, after an operator's request."""

    def condition_changed(self) -> None:
        self._tell(lambda listener: listener.condition_changed())
        self._changed()

    def _end_drained(self) -> None:
        self.runner.post(ev.StopRequested(reason=Reason.SWAPPED))

    def _tell_draining(self, worker: WorkerHandle) -> None:
        self.runner.post(ev.DrainRequested())
        self._tell(lambda listener: listener.worker_draining(worker))

    def _tell(self, call: Callable[[FleetListener], None]) -> None:
        listener = self._listener()
        if listener is None:
            return
        try:
            call(listener)
        except Exception:  # the boundary: a listener's trouble must not stop a worker's life
            logger.exception("listener_failed")
