"""The front as a whole: its parts, the order in which they start, and how they end.

Owns the wiring and nothing else: fleet, dispatch and HTTP know each other only through ports.
"""

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from gpufc.config import Config
from gpufc.config.live import own
from gpufc.errors import Overloaded
from gpufc.settings import Value
from supervisor import optional
from supervisor.access.sessions import Sessions
from supervisor.devices.history import Recent
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.durable_store import DurableRequests
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.standby import Spare
from supervisor.front_process import keep_rotated, reap_orphans
from supervisor.handover.taker import Taker
from supervisor.http.edge import run_token
from supervisor.http.edge.context import Devices, Services
from supervisor.http.edge.credentials import by_keys
from supervisor.http.edge.middleware import Authenticator
from supervisor.http.edge.server import FrontRunner, listeners, require_guarded, urls
from supervisor.http.edge.tls import Certificate
from supervisor.http.routes import create_web_app
from supervisor.http.service.metrics import exposition_of, figures_of
from supervisor.http.service.stats import document
from supervisor.operations import Operations
from supervisor.readiness import wait_ready
from supervisor.reload import Origins, Reloader
from supervisor.roster.assembly import Assembly
from supervisor.runtime_dir import RuntimeDir

logger = logging.getLogger(__name__)


class Front:
    """A running front, as an async context in the main thread's loop.

    On entering, the port is taken and answers before the fleet begins to load. On leaving, every
    process, socket and task has ended, whatever the reason.
    """

    def __init__(
        self,
        config: Config,
        *,
        values: Sequence[Value] = (),
        origins: Origins | None = None,
        devices: Devices | None = None,
        taker: Taker | None = None,
        spare: Spare | None = None,
    ) -> None:
        """`values` are the sources of `config`, and `origins` reads them again; `devices` is
        started and stopped by the caller.

        A `spare` becomes the first worker. With a `taker` the front takes over from another one;
        `taker.prepare` must have returned before the front is entered. Raises `ConfigError` or
        `StartError` for a runtime folder that cannot be used or is in use.
        """
        self.config = config = own(config)
        self.runtime = taker.runtime if taker else RuntimeDir.acquire(config.server.runtime_dir)
        self.started_at = taker.started_at if taker else time.time()
        self.addresses: list[str] = []
        """The URLs under which it is reached, once entered."""
        self.listeners: list[socket.socket] = []
        self._taker = taker
        self._upkeep: list[asyncio.Task[None]] = []
        self.cluster = optional.cluster(config, self.runtime.logs)
        self.fleet = self._new_fleet(spare)
        self.dispatcher = Dispatcher(self.fleet, config.admission)
        self._plugins, listener = optional.plugins(config, self.runtime.logs, self.dispatcher)
        self.fleet.listener = listener
        self._assembly = Assembly(
            config,
            self.fleet,
            self.dispatcher.demand,
            self.runtime.path,
            devices.snapshot if devices is not None else None,
        )
        self.roster, self.models = self._assembly.roster, self._assembly.models
        self.operations = Operations(self)
        self.reloader = Reloader(config, values, origins, self.fleet, self._reloaded)
        self._tracer = optional.tracer(config.server.otlp_endpoint)
        self._keys = optional.key_ring(config)
        durable = DurableRequests(config.limits, clock=time.monotonic, call_later=_call_later)
        self._cells = optional.cells(config, self.dispatcher, self.fleet, durable, self._keys)
        self._services = self._new_services(devices, durable)
        self._certificate = Certificate.of(config.access)
        self._token, authenticator = self._access()
        app = create_web_app(self._services, authenticator)
        self.http = FrontRunner(app, config.limits, self._certificate)
        self._network = optional.network_client(config, self._services, self.http)
        self._wants_network = True

    def _new_fleet(self, spare: Spare | None) -> Fleet:
        """With the workers of the other front, where this one takes over."""
        return Fleet(
            self.config,
            self.runtime,
            inheritance=self._taker.fleet_inheritance if self._taker else None,
            spare=spare,
            remote=self.cluster.edge if self.cluster is not None else None,
        )

    def _new_services(self, devices: Devices | None, durable: DurableRequests) -> Services:
        """What the routes are given."""
        return Services(
            config=self.config,
            fleet=self.fleet,
            dispatcher=self.dispatcher,
            devices=devices,
            durable=durable,
            started_at=self.started_at,
            operator=self.operations,
            tracer=self._tracer,
            models=self.models,
            roster=self.roster,
            network=lambda: self._network.status() if self._network else None,
            runtime_dir=self.runtime.path,
            keys=self._keys,
            hooks=self._plugins,
            hosts=self.cluster.rows if self.cluster is not None else None,
            cells=self._cells,
        )

    def _access(self) -> tuple[str | None, Authenticator]:
        """The run's token, and the authenticator. With keys, there is no token."""
        text_of = run_token.known if self._taker is not None else run_token.make
        if self._keys is not None:
            secret = text_of(self.runtime.session_secret)
            return None, by_keys(self._keys, Sessions(secret.encode(), time.time))
        token = text_of(self.runtime.admin_token)
        return token, run_token.by_token(token)

    async def __aenter__(self) -> Self:
        """Raises `StartError` if the port is taken, `ConfigError` if a plugin does not load."""
        if self.config.server.offline:
            optional.forbid_connections()
        works = [
            reap_orphans(),
            keep_rotated(self.runtime.logs, lambda: self.config.server.log_max_bytes),
            self.reloader.watch(),
            self.http.cut_off_stalled(),
        ]
        if self._certificate is not None:
            works.append(self._certificate.keep_fresh())
        self._upkeep = [asyncio.create_task(work) for work in works]
        try:
            await self.load_plugins()
            if self._taker is None:
                await self._listen()
                await self.fleet.start()
                self._assembly.start()
                if self.cluster is not None:
                    self.cluster.start(self.fleet, self.roster.hint)
            else:
                await self._taker.take_over(self)
                self._assembly.start()
                if self.cluster is not None:
                    self.cluster.take_over(self.fleet)
                await self._listen()
            self.join_network()
            if self._cells is not None:
                self._cells.start()
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
        if self._cells is not None:  # before their end, which would be a request's
            await self._cells.leave()
        self.dispatcher.end_all(Overloaded("The server is stopping", retry_after_s=5.0))
        await self._close()

    async def _listen(self) -> None:
        server = self.config.server
        # name look-ups may block here: no other task waits for the loop yet
        given = self._taker.listeners if self._taker else None
        self.listeners = given or listeners(server.host, server.port)
        require_guarded(self.listeners, self.config.access)
        if self._token is None:  # an upgrade may have begun to ask for keys
            self.runtime.admin_token.unlink(missing_ok=True)
        await self.http.setup()
        await self.http.listen(self.listeners)
        self.addresses = urls(self.listeners, tls=self._certificate is not None)
        # full collections walk all objects and block the loop: leave out the start's
        gc.collect()
        gc.freeze()
        logger.info("listening addresses=%s", " ".join(self.addresses))

    async def _close(self) -> None:
        self.operations.cancel()
        await self.leave_network()
        await self.http.cleanup()
        await self._assembly.stop()
        await self.fleet.stop(now=self.operations.stop_now.is_set())
        if self.cluster is not None:
            await self.cluster.stop()
        if self._plugins is not None:
            await self._plugins.stop()
        for work in self._upkeep:
            work.cancel()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
        self.runtime.cleanup()

    async def load_plugins(self) -> None:
        """Start the plugins, if there are any. Raises `ConfigError`. Entering does it, too."""
        if self._plugins is not None:
            await self._plugins.start()

    # the network

    def connect_network(self) -> None:
        """An operator wants the front in its network."""
        self._wants_network = True
        self.join_network()

    async def disconnect_network(self) -> None:
        """An operator wants the front out of its network, until `connect_network`."""
        self._wants_network = False
        await self.leave_network()

    def join_network(self) -> None:
        """Take tasks from the configured control server, if there is one and it is wanted."""
        if self._network is not None and self._wants_network:
            self._network.start()

    async def hand_network_over(self) -> None:
        """Leave the control server to another front. Tasks that run go on here."""
        if self._network is not None:
            await self._network.hand_over()

    @property
    def n_network_tasks(self) -> int:
        """Tasks of the network that still run here after `hand_network_over`."""
        return self._network.n_kept if self._network is not None else 0

    async def leave_network(self) -> None:
        """Leave the control server. Returns when its connection is closed."""
        if self._network is not None:
            await self._network.stop()

    # its life, as `start` follows it

    async def wait_ready(self) -> None:
        """As `readiness.wait_ready`."""
        await wait_ready(self.fleet, self.dispatcher, self.cluster, self.operations.stopping)

    def restore_token(self) -> None:
        """Write this run's token, if it has one, again if its file has vanished. Raises
        `OSError`."""
        if self._token is not None and not self.runtime.admin_token.exists():
            run_token.write(self.runtime.admin_token, self._token)

    def _reloaded(self) -> None:
        """The configuration in force has other values."""
        self.dispatcher.limits_changed()
        for model in self.fleet.models():
            self.roster.register(model)

    def reload_soon(self, why: str) -> None:
        """Read the configuration again and apply it. The log tells the outcome."""
        self.operations.reload_soon(why)

    def request_stop(self, now: bool = False) -> None:
        """Begin to drain; with `now`, or the second time, end at once. Returns immediately."""
        self.operations.request_stop(now)

    async def wait_stop(self) -> bool:
        """Wait until a stop is requested, then until running requests have ended.

        False if `shutdown_timeout_s` passed before, or a stop `now` was requested. True also when
        another front has taken over.
        """
        if await self.operations.wait_end():
            return True
        timeout_s = self.config.server.shutdown_timeout_s
        logger.info("draining timeout_s=%s", timeout_s)
        self.dispatcher.drain(retry_after_s=timeout_s)
        drained = asyncio.create_task(self.dispatcher.wait_idle(timeout_s))
        hurried = asyncio.create_task(self.operations.stop_now.wait())
        try:
            done, _ = await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
            return drained in done and drained.result()
        finally:
            drained.cancel()
            hurried.cancel()
            self.operations.cancel()

    @property
    def stopping(self) -> asyncio.Event:
        """Set when a stop has been requested."""
        return self.operations.stopping

    # displays

    def status(self) -> dict[str, Any]:
        """The `/stats` document, and the front itself under `front`."""
        condition = self.dispatcher.condition()
        front = {
            "pid": os.getpid(),
            "addresses": self.addresses,
            "needs_key": self.config.access.keys_file is not None,
            "runtime_dir": str(self.runtime.path),
            "condition": {
                "status": condition.status,
                "detail": condition.detail,
                "retry_after_s": condition.retry_after_s,
            },
        }
        return document(self._services) | {"front": front}

    async def exposition(self) -> bytes:
        """All metrics as Prometheus' text."""
        figures = figures_of(self._services)
        return (await asyncio.to_thread(exposition_of, figures))[0]

    def history(self) -> Recent:
        """The last hour of the machine."""
        devices = self._services.devices
        return devices.history() if devices else Recent(begins_at=0.0, interval_s=0.0, tracks=())

    def effective_values(self) -> Sequence[Value]:
        """Every configuration value in force."""
        return self.reloader.values


def _call_later(delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay_s, callback)
