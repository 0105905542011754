"""The front as a machine of a GPUFabric network: carries out what `session` decides.

Everything runs in the event loop's thread. One task reads from the control connection; it waits for
no generation. The control server's loss ends its tasks and nothing else.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gpufc.config import Config
from supervisor.devices.snapshot import Snapshot
from supervisor.fabric import messages as m
from supervisor.fabric import session as s
from supervisor.fabric.identity import client_id
from supervisor.fabric.link import LOST, Link
from supervisor.fabric.proxy import Proxies
from supervisor.fabric.reporting import NOTHING, heartbeat, login, model_status
from supervisor.fabric.request import principal_of
from supervisor.fabric.route import Route
from supervisor.fabric.tasks import TaskCounts, Tasks
from supervisor.fabric.trust import Trust
from supervisor.fleet.port import ConditionStatus
from supervisor.http.edge.context import Services
from supervisor.http.edge.server import FrontRunner

if TYPE_CHECKING:
    from supervisor.fabric.offers import Downloads

logger = logging.getLogger(__name__)

BEAT_S = 20.0
"""For a heartbeat's connection."""

GRACE_S = 2.0
"""For tasks to send their `done` when the front leaves by itself."""

UNSERVED = frozenset({ConditionStatus.FAILED, ConditionStatus.DRAINING})
"""Conditions of a model that gets no tasks. One that restarts does: they wait."""


class NetworkStatus(Struct, frozen=True, kw_only=True):
    """`/stats`' `network`. Times ending in `_at` are unix seconds, None for never."""

    server: str
    client_id: str
    phase: s.Phase
    detail: str
    models: tuple[str, ...]
    logged_in_at: float | None
    last_heartbeat_at: float | None
    tasks_running: int
    tasks_waiting: int
    tasks: TaskCounts
    connections: int
    downloaded: tuple[str, ...] = ()
    """Files of models that the server has asked for."""


class NetworkClient:
    """Invariant: at most one control connection is open, from `Connect` to `Closed`."""

    def __init__(
        self,
        config: Config,
        front: Services,
        http: FrontRunner,
        *,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """Raises `ConfigError`. Connects to nothing."""
        fabric = config.fabric
        self._id = client_id(fabric)
        self._trust = Trust(fabric)
        self._port = fabric.control_port
        self._front = front
        self._clock = clock
        self._dice = dice
        self._session = s.Session()
        self._principal = principal_of("network", fabric.network_share)
        self._counts = TaskCounts()
        self._limits = (
            fabric.network_tasks or config.admission.max_concurrent_requests,
            fabric.network_queue,
        )
        self._downloads = self._accepting(config) if fabric.accept_models else None
        self._proxies = Proxies(
            self._trust,
            fabric.proxy_port,
            http,
            principal_of("network-user", fabric.network_share),
            most=fabric.network_connections,
            is_draining=self._is_draining,
        )
        self._link: Link | None = None
        self._tasks: Tasks | None = None
        self._route: Route | None = None
        self._kept: list[Tasks] = []
        self._answered = asyncio.Event()
        self._conversation: asyncio.Task[None] | None = None
        self._works: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None
        self._models: tuple[str, ...] = ()
        self._ignored: set[str] = set()
        self._logged_in_at: float | None = None
        self._last_heartbeat_at: float | None = None

    def _accepting(self, config: Config) -> "Downloads":
        from supervisor.fabric.offers import Downloads  # brings the client for HTTP

        return Downloads(self._id.raw, config.downloads_folder, self._tell)

    def start(self) -> None:
        """Join the network as soon as a model is loaded. Does nothing if it has been started."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._follow_models())

    async def stop(self) -> None:
        """Leave the network: no connection and no task is left. `start` may follow."""
        self._stop_watching()
        for tasks in self._all_tasks():
            with contextlib.suppress(*LOST):
                async with asyncio.timeout(GRACE_S):
                    await tasks.leave()
        await self._log_out()
        for tasks in tuple(self._kept):
            await tasks.end()
        await self._proxies.close()
        if self._downloads is not None:
            await self._downloads.stop()
        works = tuple(self._works)
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)

    async def hand_over(self) -> None:
        """Make room for another front of this machine. Returns when it may log in.

        Tasks go on here, and their chunks over a connection without a login. The front may `start`
        again, or `stop` when `n_kept` is 0. A cancel of a task that the other front hears of
        changes nothing.
        """
        self._stop_watching()
        if self._downloads is not None:
            await self._downloads.stop()
        tasks, route = self._tasks, self._route
        if tasks is not None and route is not None:
            tasks.hand_over()
            async with route.leaving():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GRACE_S):
                        await self._until_all_is_read()
                if self._tasks is tasks:
                    self._tasks = None
                    self._kept.append(tasks)
                    self._spawn(self._see_out(tasks, route))
                await self._log_out()
        else:
            await self._log_out()

    @property
    def n_kept(self) -> int:
        """Tasks of sessions that are handed over, which still run."""
        return sum(tasks.running for tasks in self._kept)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _log_out(self) -> None:
        self._handle(s.Stopped())
        if self._conversation is not None:
            await self._conversation

    async def _until_all_is_read(self) -> None:
        """Wait for the answer to a last message: the server reads a connection in order, but not
        two connections."""
        self._handle(s.ModelsChanged())
        while self._session.awaits_answer:
            self._answered.clear()
            await self._answered.wait()

    async def _see_out(self, tasks: Tasks, route: Route) -> None:
        try:
            await tasks.wait_idle()
        finally:
            self._kept.remove(tasks)
            await route.close()

    def _all_tasks(self) -> list[Tasks]:
        return [*([self._tasks] if self._tasks else []), *self._kept]

    def status(self) -> NetworkStatus:
        """The figures now."""
        tasks = self._all_tasks()
        return NetworkStatus(
            server=f"{self._trust.address}:{self._port}",
            client_id=str(self._id),
            phase=self._session.phase,
            detail="" if self._session.phase is s.Phase.ONLINE else self._session.last_error,
            models=self._models,
            logged_in_at=self._logged_in_at,
            last_heartbeat_at=self._last_heartbeat_at,
            tasks_running=sum(one.running for one in tasks),
            tasks_waiting=sum(one.waiting for one in tasks),
            tasks=self._counts,
            connections=self._proxies.n_served,
            downloaded=self._downloads.downloaded if self._downloads else (),
        )

    def _is_draining(self) -> bool:
        return self._front.dispatcher.condition().status is ConditionStatus.DRAINING

    # events and actions

    def _handle(self, event: s.Event) -> None:
        now = self._clock()
        for action in self._session.handle(event, now, self._dice()):
            self._act(action)
        self._set_timer(now)

    def _act(self, action: s.Action) -> None:
        match action:
            case s.Connect():
                self._conversation = asyncio.create_task(self._converse())
            case s.SendLogin():
                self._spawn(self._tell(self._login()))
            case s.SendStatus():
                self._models = self._served()
                created = int(self._front.started_at)
                wishes = (self._snapshot() or NOTHING) if self._downloads else None
                self._spawn(self._tell(model_status(self._id, self._models, created, wishes)))
            case s.Beat():
                self._spawn(self._beat())
            case s.Join():
                self._join()
            case s.Close():
                if self._conversation is not None:
                    self._conversation.cancel()
            case s.Ignore(message):
                self._ignore(type(message).__name__)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._session.deadline
        if deadline is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, deadline - now), self._handle, s.Ticked())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)

    # the conversation

    async def _converse(self) -> None:
        """One connection from its opening to its full close."""
        link, reason = None, "closed by this machine"
        try:
            link = self._link = await Link.open(self._trust, self._port)
            self._handle(s.Opened())
            while True:
                await self._receive(await link.receive())
                await asyncio.sleep(0)  # a flood must not keep others from the loop
        except asyncio.CancelledError:
            pass  # by `Close`: the session waits for the end below
        except EOFError:
            reason = "the server closed the connection"
        except LOST as err:
            reason = f"{type(err).__name__}: {err}"
        except Exception:  # the boundary of a session: the next one may do better
            logger.exception("network_session_failed")
            reason = "something went wrong on our side"
        tasks, self._tasks, self._link = self._tasks, None, None
        self._route = None
        if tasks is not None:
            await tasks.end()
        if link is not None:
            await link.close()
        self._conversation = None
        self._handle(s.Closed(reason))
        self._answered.set()  # none will come
        is_meant = self._session.phase is s.Phase.OFF
        level = logging.INFO if is_meant else logging.WARNING
        logger.log(level, "network_left reason=%s", self._session.last_error)

    async def _receive(self, message: m.Command) -> None:
        tasks = self._tasks
        match message:
            case m.InferenceTask() | m.ChatInferenceTask() if tasks is not None:
                await tasks.take(message)
            case m.CancelInference(task_id) if tasks is not None:
                for some in self._all_tasks():
                    await some.cancel(task_id)
            case m.RequestNewProxyConn(proxy_conn_id) if tasks is not None:
                self._proxies.open(proxy_conn_id)
            case _:
                self._handle(s.Received(message))
                self._answered.set()
                if self._downloads is not None and isinstance(message, m.PullModelResult):
                    self._downloads.take(message.pods_model)

    def _join(self) -> None:
        link = self._link
        if link is None:
            return
        n_running, n_waiting = self._limits
        self._route = Route(self._trust, self._port, link)
        self._tasks = Tasks(
            self._front,
            self._principal,
            self._route.send,
            self._counts,
            n_running=n_running,
            n_waiting=n_waiting,
        )
        self._logged_in_at = time.time()
        logger.info("network_joined server=%s client=%s", self._trust.address, self._id)

    async def _tell(self, message: m.Command) -> None:
        if self._link is not None:
            with contextlib.suppress(*LOST):  # the conversation ends by itself then
                await self._link.send(message)

    async def _beat(self) -> None:
        """Send a heartbeat. The server reads no more from its connection until a broker has taken
        it, so that the tasks' connection must not be used."""
        try:
            async with asyncio.timeout(BEAT_S):
                link = await Link.open(self._trust, self._port)
                try:
                    await link.send(heartbeat(self._id, self._snapshot()))
                finally:
                    await link.close()
        except LOST as err:
            logger.warning("network_heartbeat_failed error=%s", err or type(err).__name__)
            self._handle(s.BeatFailed())
        else:
            self._last_heartbeat_at = time.time()

    def _ignore(self, name: str) -> None:
        """Note a message that is not for us, once for each kind: P2P is not spoken."""
        if name not in self._ignored:
            self._ignored.add(name)
            logger.info("network_message_ignored kind=%s", name)

    def _login(self) -> m.Login:
        return login(self._id, self._snapshot(), auto_models=self._downloads is not None)

    def _snapshot(self) -> Snapshot | None:
        devices = self._front.devices
        return devices.snapshot() if devices else None

    # models

    async def _follow_models(self) -> None:
        """Join once there is a model, and tell the server of every change."""
        while True:
            self._models = self._served()
            if self._models:
                self._handle(s.Started())
            self._handle(s.ModelsChanged())
            await self._front.dispatcher.wait_until(lambda: self._served() != self._models)

    def _served(self) -> tuple[str, ...]:
        """The models that tasks may ask for now."""
        dispatcher = self._front.dispatcher
        found = []
        for model in self._front.fleet.models():
            facts, status = dispatcher.facts(model), dispatcher.condition(model).status
            # one that has never been loaded, and can be, is loaded by its first task
            is_listed = status is ConditionStatus.OK if facts is None else facts.generates
            if is_listed and status not in UNSERVED:
                found.append(model)
        return tuple(found)
