"""The old front's side: starts a new front, hands everything over to it, drains, and ends.

Nothing changes before `Go`: after any failure, the new process is ended and this front goes on.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from gpufc.config import Config
from gpufc.errors import GpufcError, LinkError, Overloaded
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import PROTOCOL_VERSION
from gpufc.settings import Origin, Value
from supervisor import systemd
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.followed import Lent
from supervisor.fleet.inheritance import Holdings
from supervisor.handover.messages import (
    VERSION,
    Attached,
    Estate,
    FromNew,
    Go,
    Origins,
    Serving,
    Unwilling,
    Willing,
)
from supervisor.handover.packets import MAX_DESCRIPTORS
from supervisor.handover.remote import RemoteFleet, RemoteWorker
from supervisor.handover.successor import Successor
from supervisor.http.edge.connection import BoundedHandler
from supervisor.http.edge.server import FrontRunner
from supervisor.http.edge.stalls import Stalls
from supervisor.runtime_dir import RuntimeDir

logger = logging.getLogger(__name__)

START_S = 60.0
"""Enough for the interpreter, imports and the configuration on a busy machine."""

TAKE_OVER_S = 120.0
"""A worker attaches between two steps of its engine. The new front replaces one that does not."""

N_FIXED = 4
"""Descriptors that go with every estate: the relay, the lock, standard output and error."""

LOOK_S = 0.1

LEAST_STALL_S = 2.0
"""A client that takes nothing for this long, and for `shutdown_timeout_s`, does not read."""


class Upgraded(Struct, frozen=True):
    """A new front serves. `n_draining` requests are still answered by the old one."""

    pid: int
    n_draining: int


class UpgradeFailed(GpufcError):
    """No new front has taken over. The text is the reason."""


class UpgradeBroke(UpgradeFailed):
    """The new front died while it took over, and the workers with it: nothing serves."""


class GivingFront(Protocol):
    """The parts that are handed over (`supervisor.app.Front`)."""

    config: Config
    runtime: RuntimeDir
    fleet: Fleet
    dispatcher: Dispatcher
    http: FrontRunner
    listeners: list[socket.socket]
    started_at: float

    @property
    def cluster(self) -> "GivenCluster | None": ...
    @property
    def stopping(self) -> asyncio.Event: ...
    def effective_values(self) -> Sequence[Value]: ...
    def join_network(self) -> None: ...
    async def hand_network_over(self) -> None: ...
    @property
    def n_network_tasks(self) -> int: ...


class GivenCluster(Protocol):
    """The worker hosts' end (`supervisor.remote.cluster.Cluster`)."""

    def retire(self) -> None:
        """Close it: the hosts go to the next front, which listens at the same address."""
        ...


Tell = Callable[[str], None]


class Giver:
    """One upgrade: `hand_over`, then `drain`, then the front may end."""

    def __init__(
        self,
        front: GivingFront,
        tell: Tell,
        drains_in_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`tell` gets a progress line at each step. `drains_in_s`: see `Go`."""
        self._front = front
        self._tell = tell
        self._drains_in_s = drains_in_s
        self._successor: Successor | None = None
        self._remote: RemoteFleet | None = None

    async def hand_over(self) -> Upgraded:
        """Start a new front. Returns when it serves.

        Raises `UpgradeFailed`. Unless `handed_over`, this front then serves as before.
        """
        if os.getpid() == 1:
            raise UpgradeFailed(
                "the front is process 1, and the container would end with it; start a new container"
            )
        try:
            holdings = self._front.fleet.succession.holdings()
            successor = Successor()
        except (Overloaded, OSError) as err:
            raise UpgradeFailed(str(err)) from err
        self._tell(f"starting the new front (pid {successor.pid})")
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                willing = await self._ask(successor, holdings, theirs)
            # a control server takes one login of a machine at a time
            await self._front.hand_network_over()
            await self._go(successor, holdings, willing, ours)
        except BaseException as err:
            ours.close()
            await successor.end()
            self._front.join_network()
            if isinstance(err, TimeoutError):
                raise UpgradeFailed(
                    f"the new front was not ready within {START_S:.0f} s; try again when the"
                    " machine is less busy"
                ) from err
            if isinstance(err, LinkError | OSError):
                raise UpgradeFailed(str(err)) from err
            raise
        self._successor = successor
        await self._follow(successor)
        return Upgraded(successor.pid, self._front.http.n_busy)

    async def _ask(self, successor: Successor, holdings: Holdings, relay: socket.socket) -> Willing:
        """Give copies of everything to the new front, and wait until it could take over."""
        lent = self._lent(holdings)
        successor.send(self._estate(holdings, lent), self._descriptors(lent, relay))
        async with asyncio.timeout(START_S):
            match await self._first_words(successor):
                case Willing() as willing:
                    return willing
                case Unwilling(reason):
                    raise LinkError(reason)
                case other:
                    raise LinkError(f"the new front began with {type(other).__name__}")

    async def _first_words(self, successor: Successor) -> FromNew:
        """The new front's first message. Raises `LinkError`, also if this front is told to stop."""
        words = asyncio.ensure_future(successor.receive())
        stopped = asyncio.ensure_future(self._front.stopping.wait())
        try:
            await asyncio.wait({words, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                raise LinkError("the front was told to stop")
            return words.result()
        finally:
            words.cancel()
            stopped.cancel()

    def _lent(self, holdings: Holdings) -> dict[WorkerName, Lent]:
        """The workers' descriptors. Raises `LinkError`."""
        found = {}
        for worker in holdings.lent:
            name = worker.spec.name
            lent = self._front.fleet.succession.lend(name)
            if lent is None:
                raise LinkError(f"{name} has just died; try again")
            found[name] = lent
        return fitting(found, MAX_DESCRIPTORS - N_FIXED - len(self._front.listeners))

    def _estate(self, holdings: Holdings, lent: Mapping[WorkerName, Lent]) -> Estate:
        front = self._front
        values = front.effective_values()
        flags = {v.key.name: v.value for v in values if v.source.origin is Origin.FLAG}
        files = [v.source.name for v in values if v.source.origin is Origin.FILE]
        return Estate(
            version=VERSION,
            protocol=PROTOCOL_VERSION,
            pid=os.getpid(),
            runtime_dir=str(front.runtime.path),
            origins=Origins(
                flags=flags, file=files[0] if files else None, models=front.config.models
            ),
            started_at=front.started_at,
            n_listeners=len(front.listeners),
            fleet=holdings,
            relayed=_relayed(holdings),
            watched=frozenset(name for name, one in lent.items() if one.end_word is not None),
        )

    def _descriptors(self, lent: Mapping[WorkerName, Lent], relay: socket.socket) -> list[int]:
        front = self._front
        found = [relay.fileno(), front.runtime.lend(), 1, 2]
        found += [sock.fileno() for sock in front.listeners]
        for one in lent.values():
            found += [one.pidfd, one.boot_write]
            found += [] if one.end_word is None else [one.end_word]
        return found

    async def _go(
        self, successor: Successor, holdings: Holdings, willing: Willing, relay: socket.socket
    ) -> None:
        """Hand over if nothing has changed since the estate was taken. There is no way back after
        it."""
        fleet = self._front.fleet.succession
        relayed = [
            RemoteWorker(handle, epoch)
            for model, epoch in _relayed(holdings).items()
            for handle in fleet.serving(model)[:1]
        ]
        remote = RemoteFleet(self._front.dispatcher, relayed, fleet.successor_lost)
        await remote.open(relay)
        # no await from here on: nothing can change in between
        if self._front.stopping.is_set() or not fleet.holds(holdings):
            remote.close()
            raise LinkError(
                "the front is stopping, or a worker has just died or is being replaced; try again"
            )
        drains_in_s = self._drains_in_s()
        successor.send(Go(self._front.dispatcher.ledger.totals(), drains_in_s))
        if drains_in_s is not None:
            self._tell("the new front stays drained; `drain --undo` lets it take requests")
        for attachment in willing.attachments:
            fleet.hand_over(
                attachment.worker, attachment.successor, attachment.endpoint, attachment.token
            )
        fleet.hand_over_remote()
        if self._front.cluster is not None:
            self._front.cluster.retire()
        remote.begin()
        self._remote = remote

    async def _follow(self, successor: Successor) -> None:
        """Wait until the new front serves. If it dies now, the workers end with it."""
        fleet = self._front.fleet
        try:
            async with asyncio.timeout(TAKE_OVER_S):
                while True:
                    match await successor.receive():
                        case Attached(worker, pid):
                            self._tell(f"worker {worker} attached (pid {pid})")
                        case Serving():
                            break
                        case _:
                            pass
        except (LinkError, TimeoutError) as err:
            await fleet.let_go()
            await successor.end()
            logger.critical("upgrade_broke: %s", err)
            raise UpgradeBroke(
                f"the new front died during the takeover, and the workers with it ({err}); start"
                " the service again"
            ) from err
        await self._front.http.retire()
        self._front.dispatcher.handed_over()
        await fleet.let_go()
        self._front.runtime.let_go()
        systemd.notify(f"MAINPID={successor.pid}")
        logger.info("handed_over pid=%d", successor.pid)

    @property
    def handed_over(self) -> bool:
        """Whether the point of no return has passed, also after a failure."""
        return self._remote is not None

    async def drain(self) -> None:
        """Wait for this front's own clients: until no connection is left, or until the keep-alive
        time has passed without a request. A client that takes nothing is cut off meanwhile."""
        front, remote = self._front, self._remote
        keepalive_s = front.config.limits.keepalive_timeout_s
        stalls = Stalls[BoundedHandler](max(LEAST_STALL_S, front.config.server.shutdown_timeout_s))
        quiet_since = time.monotonic()
        while remote is not None and not remote.lost:
            now = time.monotonic()
            front.http.cut_off(stalls)
            if front.http.n_busy or not front.dispatcher.idle or front.n_network_tasks:
                quiet_since = now
            elif not front.http.n_connections or now - quiet_since > keepalive_s:
                break
            await asyncio.sleep(LOOK_S)
        if remote is not None:
            remote.close()
        if self._successor is not None:
            self._successor.let_live()


def fitting(lent: Mapping[WorkerName, Lent], room: int) -> dict[WorkerName, Lent]:
    """The same, without end words where there is no room for so many descriptors."""
    if sum(2 + (one.end_word is not None) for one in lent.values()) <= room:
        return dict(lent)
    return {name: Lent(one.pidfd, one.boot_write) for name, one in lent.items()}


def _relayed(holdings: Holdings) -> dict[str, Epoch]:
    """The epochs by which this front's dispatch addresses the new front's workers. All are new."""
    models = dict.fromkeys(worker.spec.model for worker in holdings.workers)
    return {model: Epoch(holdings.next_epoch + i) for i, model in enumerate(models)}
