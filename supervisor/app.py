"""The front as a whole: what it is made of, in which order it starts, and how it ends.

Owns the wiring and nothing else: fleet, dispatch and HTTP know each other only through ports.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from gpufc.config import Config
from gpufc.errors import ConfigError, NotFound, Overloaded, StartError
from gpufc.ids import WorkerName
from gpufc.settings import Value
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.durable import DurableRequests
from supervisor.dispatch.port import ServedFleet
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.port import ConditionStatus, ModelChange
from supervisor.fleet.standby import Spare
from supervisor.handover.giver import Giver, UpgradeFailed
from supervisor.handover.taker import Taker
from supervisor.http import run_token
from supervisor.http.context import Devices, Operator, Services
from supervisor.http.routes import create_web_app
from supervisor.http.server import FrontRunner, listeners, urls
from supervisor.http.stats import document
from supervisor.operations import Replacing, Work
from supervisor.runtime_dir import RuntimeDir

logger = logging.getLogger(__name__)


class UnusableModel(StartError, ConfigError):
    """It could not start because the model or its configuration is at fault: trying again would
    fail again, hence also a `ConfigError`, with its exit code."""


def create_app(
    config: Config, fleet: ServedFleet, dispatcher: Dispatcher, devices: Devices | None = None
) -> web.Application:
    """The HTTP application over these parts. Starts nothing."""
    return create_web_app(_services(config, fleet, dispatcher, devices))


def _services(
    config: Config,
    fleet: ServedFleet,
    dispatcher: Dispatcher,
    devices: Devices | None,
    started_at: float | None = None,
    operator: Operator | None = None,
) -> Services:
    return Services(
        config=config,
        fleet=fleet,
        dispatcher=dispatcher,
        devices=devices,
        durable=DurableRequests(config.limits, clock=time.monotonic, call_later=_call_later),
        started_at=started_at or time.time(),
        operator=operator,
    )


def _call_later(delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay_s, callback)


class Front:
    """A running front, as an async context in the main thread's loop.

    On entering, the port is taken and answers before the fleet begins to load; on leaving,
    everything is ended and nothing stays behind, however it came to that.
    """

    def __init__(
        self,
        config: Config,
        *,
        values: Sequence[Value] = (),
        devices: Devices | None = None,
        taker: Taker | None = None,
        spare: Spare | None = None,
    ) -> None:
        """`values` are what `config` was made of; `devices` is started and stopped by the caller.
        A `spare` becomes the first worker.
        With a `taker` it takes over from another front, and `taker.prepare` must have returned
        before it is entered.

        Raises `ConfigError` or `StartError` for a runtime folder that cannot be used or is in use.
        """
        self.config = config
        self.runtime = taker.runtime if taker else RuntimeDir.acquire(config.server.runtime_dir)
        inheritance = taker.fleet_inheritance if taker else None
        self.fleet = Fleet(config, self.runtime, inheritance=inheritance, spare=spare)
        self.dispatcher = Dispatcher(self.fleet, config.admission)
        self.fleet.listener = self.dispatcher
        self.addresses: list[str] = []
        """The URLs under which it is reached, once entered."""
        self.listeners: list[socket.socket] = []
        self.started_at = taker.started_at if taker else time.time()
        self._taker = taker
        self._giver: Giver | None = None
        self._giving = asyncio.Lock()
        """Held while a new front takes over: this one does not end in the middle of it."""
        self._handed_over = asyncio.Event()
        self.successor: int | None = None
        """The pid of the front that has taken over from this one."""
        self._values = values
        self._services = _services(
            config, self.fleet, self.dispatcher, devices, self.started_at, operator=self
        )
        self.stopping = asyncio.Event()
        """Set when a stop has been requested."""
        self._stop_now = asyncio.Event()
        token_file = self.runtime.admin_token
        self.admin_token = run_token.known(token_file) if taker else run_token.make(token_file)
        app = create_web_app(self._services, run_token.by_token(self.admin_token))
        self.http = FrontRunner(app, config.limits)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Raises `StartError` if the port is taken."""
        try:
            if self._taker is None:
                await self._listen()
                await self.fleet.start()
            else:
                await self._taker.take_over(self)
                await self._listen()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.dispatcher.drain()
        self.dispatcher.end_all(Overloaded("The server is stopping", retry_after_s=5.0))
        await self._close()

    async def _listen(self) -> None:
        server = self.config.server
        # looked up here and not in a thread: nothing else is waiting for the loop yet
        given = self._taker.listeners if self._taker else None
        self.listeners = given or listeners(server.host, server.port)
        await self.http.setup()
        await self.http.listen(self.listeners)
        self.addresses = urls(self.listeners)
        # what is there now stays: a full collection that looks at it takes 15 ms of everybody's
        gc.collect()
        gc.freeze()
        logger.info("listening addresses=%s", " ".join(self.addresses))

    def _end_tasks(self) -> None:
        """What has been asked for is not waited for any longer; whoever follows it is told."""
        for task in self._tasks:
            task.cancel()

    async def _close(self) -> None:
        self._end_tasks()
        await self.http.cleanup()
        await self.fleet.stop(now=self._stop_now.is_set())
        self.runtime.cleanup()

    # what `start` waits for

    async def run(self) -> None:
        """Serve until a stop was requested and everything has ended. Raises `StartError`.

        Others may wait in `wait_ready` meanwhile.
        """
        async with self:
            await self.wait_stop()

    async def wait_ready(self) -> None:
        """Wait until a token could be produced, or until a stop is requested.

        Raises `UnusableModel` for one that cannot be loaded, `StartError` if its worker fails for
        good otherwise.
        """
        waited = asyncio.create_task(self.dispatcher.wait_until(self._is_settled))
        stopped = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({waited, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waited.cancel()
            stopped.cancel()
        condition = self.fleet.condition()
        if condition.status is ConditionStatus.FAILED:
            raise (UnusableModel if self._load_failed() else StartError)(condition.detail)

    def _is_settled(self) -> bool:
        settled = {ConditionStatus.OK, ConditionStatus.FAILED}
        return self.fleet.condition().status in settled

    def _load_failed(self) -> bool:
        exits = (row.last_exit for row in self.fleet.workers())
        return any(last is not None and last.reason is Reason.LOAD_FAILED for last in exits)

    async def _stop_or_successor(self) -> None:
        """Wait until there is nothing more to wait for."""
        waits = [asyncio.create_task(e.wait()) for e in (self.stopping, self._handed_over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def wait_stop(self) -> bool:
        """Wait until a stop is requested, then until running requests have ended.

        True if all did; False if `shutdown_timeout_s` passed or a stop `now` was requested before.
        """
        await self._stop_or_successor()
        if self._handed_over.is_set():
            return True
        async with self._giving:
            pass
        timeout_s = self.config.server.shutdown_timeout_s
        logger.info("draining timeout_s=%s", timeout_s)
        self.dispatcher.drain(retry_after_s=timeout_s)
        drained = asyncio.create_task(self.dispatcher.wait_idle(timeout_s))
        hurried = asyncio.create_task(self._stop_now.wait())
        try:
            done, _ = await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
            return drained in done and drained.result()
        finally:
            drained.cancel()
            hurried.cancel()
            self._end_tasks()

    # what operators ask for (`control.port.ControlledFront`)

    def request_stop(self, now: bool = False) -> None:
        """Begin to drain; with `now`, or the second time, end at once. Returns immediately."""
        if now or self.stopping.is_set():
            self._stop_now.set()
        self.stopping.set()

    def restart(self, worker: str | None, now: bool = False) -> Replacing:
        """Begin to replace one worker, or all one after another. Raises `NotFound`."""
        if not any(worker in {None, row.name} for row in self.fleet.workers()):
            raise NotFound(f"there is no worker {worker!r}", param="worker")
        only = None if worker is None else WorkerName(worker)
        return self._replacing(
            f"restart of {worker or 'all workers'}",
            lambda tell: self.fleet.restart(only, now=now, tell=tell),
        )

    def swap(self, name: str | None, change: ModelChange) -> Replacing:
        """Begin to serve another model under a served name; None means the only one."""
        return self._replacing(
            f"swap to {change.model_path}", lambda tell: self.fleet.swap(name, change, tell=tell)
        )

    def _replacing(self, what: str, work: Work) -> Replacing:
        replacing = Replacing(what, work)
        self._tasks.add(replacing.task)
        replacing.task.add_done_callback(self._replaced)
        return replacing

    def _replaced(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever followed it has been told

    async def upgrade(self, tell: Callable[[str], None]) -> int:
        """Let a new front take over; returns its pid once this one has only to drain, which it
        then does, and ends. `tell` gets lines for people, as long as it drains.

        Raises `UpgradeFailed`, in general with this front as it was.
        """
        if self._giver is not None:
            raise UpgradeFailed("the front is being replaced already")
        if self.stopping.is_set():
            raise UpgradeFailed("the front is stopping")
        giver = self._giver = Giver(self, tell)
        try:
            async with self._giving:
                pid = await giver.hand_over()
        except BaseException:
            if not giver.handed_over:
                self._giver = None
            else:
                self._handed_over.set()
            raise
        self.successor = pid
        task = asyncio.create_task(self._drain_away(giver))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return pid

    async def _drain_away(self, giver: Giver) -> None:
        await giver.drain()
        self._handed_over.set()

    async def wait_handed_over(self) -> None:
        """Wait until a new front has everything, and the last client of this one is served."""
        await self._handed_over.wait()

    def status(self) -> dict[str, Any]:
        """The `/stats` document, with the front itself beside it."""
        condition = self.dispatcher.condition()
        front = {
            "pid": os.getpid(),
            "addresses": self.addresses,
            "runtime_dir": str(self.runtime.path),
            "admin_token": self.admin_token,
            "condition": {
                "status": condition.status,
                "detail": condition.detail,
                "retry_after_s": condition.retry_after_s,
            },
        }
        return document(self._services) | {"front": front}

    def effective_values(self) -> Sequence[Value]:
        """Every configuration value in force."""
        return self._values


def stop_on_signals(front: Front) -> None:
    """SIGTERM and SIGINT drain; a second one ends at once. In the main thread's loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, front.request_stop)


async def run(
    config: Config,
    *,
    values: Sequence[Value] = (),
    devices: Devices | None = None,
    on_event: Callable[[str, Front], None] = lambda event, front: None,
) -> None:
    """Serve until a signal or `request_stop`. Raises `ConfigError` or `StartError`.

    `on_event` is told `listening`, `ready` and `stopping`, with the front; it must not block.
    """
    async with Front(config, values=values, devices=devices) as front:
        stop_on_signals(front)
        on_event("listening", front)
        await front.wait_ready()
        if front.fleet.condition().status is ConditionStatus.OK:
            on_event("ready", front)
        await front.wait_stop()
        on_event("stopping", front)
