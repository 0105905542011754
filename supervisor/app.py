"""The front as a whole: what it is made of, in which order it starts, and how it ends.

Owns the wiring and nothing else: fleet, dispatch and HTTP know each other only through ports.
"""

import asyncio
import logging
import os
import signal
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
from supervisor.fleet.port import ConditionStatus
from supervisor.http.context import Devices, Services
from supervisor.http.routes import create_web_app
from supervisor.http.server import BACKLOG, FrontRunner, bind, urls
from supervisor.http.stats import document
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
    config: Config, fleet: ServedFleet, dispatcher: Dispatcher, devices: Devices | None
) -> Services:
    return Services(
        config=config,
        fleet=fleet,
        dispatcher=dispatcher,
        devices=devices,
        durable=DurableRequests(config.limits, clock=time.monotonic, call_later=_call_later),
        started_at=time.time(),
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
    ) -> None:
        """`values` are what `config` was made of; `devices` is started and stopped by the caller.

        Raises `ConfigError` or `StartError` for a runtime folder that cannot be used or is in use.
        """
        self.config = config
        self.runtime = RuntimeDir.acquire(config.server.runtime_dir)
        self.fleet = Fleet(config, self.runtime)
        self.dispatcher = Dispatcher(self.fleet, config.admission)
        self.fleet.listener = self.dispatcher
        self.addresses: list[str] = []
        """The URLs under which it is reached, once entered."""
        self._values = values
        self._services = _services(config, self.fleet, self.dispatcher, devices)
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._runner: FrontRunner | None = None
        self._restarts: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Raises `StartError` if the port is taken."""
        try:
            await self._listen()
            await self.fleet.start()
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
        sockets = bind(server.host, server.port)
        self._runner = FrontRunner(create_web_app(self._services), self.config.limits)
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock, backlog=BACKLOG).start()
        self.addresses = urls(sockets)
        logger.info("listening addresses=%s", " ".join(self.addresses))

    async def _close(self) -> None:
        for task in self._restarts:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
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
        stopped = asyncio.create_task(self._stop.wait())
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

    async def wait_stop(self) -> bool:
        """Wait until a stop is requested, then until running requests have ended.

        True if all did; False if `shutdown_timeout_s` passed or a stop `now` was requested before.
        """
        await self._stop.wait()
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

    # what operators ask for (`control.port.ControlledFront`)

    def request_stop(self, now: bool = False) -> None:
        """Begin to drain; with `now`, or the second time, end at once. Returns immediately."""
        if now or self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    def restart(self, worker: str | None, now: bool = False) -> list[str]:
        """Begin to replace one worker, or all; returns their names. Raises `NotFound`."""
        names = [row.name for row in self.fleet.workers() if worker in {None, row.name}]
        if not names:
            raise NotFound(f"there is no worker {worker!r}", param="worker")
        only = None if worker is None else WorkerName(worker)
        task = asyncio.create_task(self._restart(only, now))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)
        return list(names)

    async def _restart(self, worker: WorkerName | None, now: bool) -> None:
        try:
            await self.fleet.restart(worker, now=now)
        except Exception:  # the boundary of a task that nobody waits for; `status` shows the rest
            logger.exception("restart_failed worker=%s", worker)

    def status(self) -> dict[str, Any]:
        """The `/stats` document, with the front itself beside it."""
        condition = self.dispatcher.condition()
        front = {
            "pid": os.getpid(),
            "addresses": self.addresses,
            "runtime_dir": str(self.runtime.path),
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
