"""A front's cluster: the listener for its hosts, their book, and operators' wishes."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpufc.config import ClusterConfig
from gpufc.errors import ConfigError, NotFound, Overloaded, RequestError, StartError
from gpufc.ids import WorkerName
from supervisor.cluster.book import LIFETIME_S, HostBook
from supervisor.cluster.join import JoinFile, endpoint
from supervisor.cluster.listener import HostListener, Limits
from supervisor.downloads.checksums import Checksums
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.port import HostStatus, OnReplacement, not_followed
from supervisor.looks import repeat
from supervisor.remote.edge import RemoteEdge
from supervisor.remote.hosts import Machine, MachineState
from supervisor.remote.machines import Machines
from supervisor.remote.supply import Supply

if TYPE_CHECKING:
    from supervisor.remote.placing import Placing

logger = logging.getLogger(__name__)

BIND_AGAIN_S = 0.1
NOTE_S = 600.0
"""Time between two notes in the book of the hosts that are attached."""
BIND_FOR_S = 30.0
"""A front that takes over waits so long for the address: the one before closes its listener."""

TAKE_OVER_S = 2.0
"""A front that is stopped while it takes over waits so long for the address, to end its hosts."""

RETURN_S = 2.0
"""A front that knows hosts gives them so long to bring the workers of the front before, which may
have been killed. Then these are loaded elsewhere. A host with workers dials again within a second.
"""


def default_folder() -> Path:
    """Where the front's key and its hosts' keys are without `cluster_dir`."""
    given = os.environ.get("XDG_STATE_HOME") or ""
    state = Path(given) if given.startswith("/") else Path("~/.local/state").expanduser()
    return state / "gpufc" / "cluster"


class Cluster:
    """The machines of one front. In the event loop. `start` comes after the fleet's start, so that
    hosts find the lines that their workers belong to."""

    def __init__(self, config: ClusterConfig) -> None:
        """Opens the book. Raises `ConfigError`."""
        if config.cluster_listen is None:
            raise ValueError("no cluster is configured")
        self._config = config
        self._address = config.cluster_listen
        folder = default_folder() if config.cluster_dir is None else Path(config.cluster_dir)
        self._book_path = folder / "hosts.json"
        self._book = HostBook(self._book_path)
        supply = Supply(Checksums(folder / "checksums.json"), config.cluster_models_url or "")
        self.machines = Machines(config.workers_per_machine, config.remote_silence_s, supply=supply)
        self._listener: HostListener | None = None
        self._binding: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._fleet: Fleet | None = None
        self.placing: Placing | None = None
        """Has a cluster run hosts; None where people start them."""

    def edge(self) -> RemoteEdge:
        """The edge of a new line of workers on other machines."""
        return self.machines.edge()

    # its life

    def start(self, fleet: Fleet, load: Callable[[str], None]) -> None:
        """Listen for hosts. `load` loads a model that a host still has. Raises `StartError`."""
        self._begin(fleet)
        self.machines.wants_line = lambda worker: _loads(fleet, load, WorkerName(worker))
        self._listen()
        if self._book.hosts:
            self.machines.await_return(RETURN_S)

    def take_over(self, fleet: Fleet) -> None:
        """Listen for hosts as soon as the front before has stopped to."""
        self._begin(fleet)
        self._binding = asyncio.create_task(self._listen_soon(), name="cluster listen")

    async def checked(self) -> None:
        """Wait until the cluster that is to run hosts may be used. Raises `ConfigError`."""
        if self.placing is not None:
            await self.placing.checked()

    def retire(self) -> None:
        """Leave the address to another front: the hosts go there, with their workers."""
        if self.placing is not None:
            self._leaving = asyncio.create_task(self.placing.leave(), name="placer leaves")
        self._close()

    async def stop(self) -> None:
        """After the workers have ended. A cluster ends the hosts that it runs."""
        if self._binding is not None and self.placing is not None:
            await asyncio.wait({self._binding}, timeout=TAKE_OVER_S)
        self._close()
        if self._leaving is not None:
            await self._leaving
        elif self.placing is not None:
            await self.placing.stop()
        tasks = [*self._work, *filter(None, (self._binding,))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.machines.close()

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _begin(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.machines.wants_rest = self._rest
        self._do(repeat("hosts", self._note, NOTE_S), "hosts")

    def _do(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _note(self) -> None:
        """Have the book note the attached hosts, and forget the machines that it has forgotten."""
        if self._listener is None:
            return  # it is another front's book from now on, or not yet ours
        known = {host.machine for host in self._book.hosts}
        self._book.note(self.machines.joined_now.keys())
        for machine in known - {host.machine for host in self._book.hosts}:
            logger.info("host_forgotten machine=%s", machine)
        known = {host.machine for host in self._book.hosts}
        for machine in [*self.machines.hosts.machines]:
            if machine not in known:  # one that is attached stays until it leaves
                self.machines.hosts.forget(machine)

    def _listen(self) -> None:
        limits = Limits(
            lease_s=self._config.remote_lease_s, silence_s=self._config.remote_silence_s
        )
        self._listener = HostListener(self._book, self.machines, endpoint(self._address), limits)
        logger.info("listening_for_hosts endpoint=%s", self._listener.endpoint)
        if self.placing is not None:
            self.placing.start()

    async def _listen_soon(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + BIND_FOR_S
        while True:
            try:
                self._book = HostBook(self._book_path)  # the front before may have changed it
                self._listen()
                self.machines.await_return(RETURN_S)
                return
            except (StartError, ConfigError) as err:
                if loop.time() > until:
                    logger.error("no_hosts: %s", err)
                    return
            await asyncio.sleep(BIND_AGAIN_S)

    @property
    def front_key(self) -> str:
        """The front's public key, its name for good."""
        return self._book.front.public

    # operators

    def rows(self) -> list[HostStatus]:
        """A row for each machine that has ever joined."""
        known = self.machines.hosts.machines
        rows = [self._row(machine) for machine in known.values()]
        rows += [
            HostStatus(
                machine=host.machine,
                state=MachineState.AWAY,
                detail="not seen since this front was started",
            )
            for host in self._book.hosts
            if host.machine not in known
        ]
        return sorted(rows, key=lambda row: row.machine)

    def invite(
        self,
        n_hosts: int = 1,
        lifetime_s: float | None = LIFETIME_S,
        *,
        takes_name: bool = False,
    ) -> JoinFile:
        """The content of a join file, by which so many hosts may join; None: without an end.
        `takes_name` as in `HostBook.invite`."""
        try:
            pair = self._book.invite(n_hosts, lifetime_s, takes_name=takes_name)
        except OSError as err:
            raise Overloaded(f"the hosts file cannot be written: {err}", retry_after_s=1.0) from err
        address = self._config.cluster_advertise or self._reached()
        return JoinFile(address, self._book.front.public, pair.secret)

    async def drain(
        self, machine: str, *, is_drained: bool, tell: OnReplacement = not_followed
    ) -> None:
        """Replace the workers of a machine by others elsewhere, and put none on it until it is
        allowed again. Raises `NotFound`, and as `Fleet.restart`."""
        try:
            self.machines.hosts.drain(machine, is_drained=is_drained)
        except KeyError:
            raise NotFound(f"no machine {machine!r} has joined", param="machine") from None
        self.machines.changed()
        if is_drained:
            await self._move_workers(machine, tell)

    def forget(self, machine: str) -> None:
        """Take a machine's way in, and its connection. Its workers are lost. Raises `NotFound`."""
        joined = self.machines.joined_now.get(machine)
        was_known = self._book.forget(machine)
        if joined is not None:
            joined.channel.cut("an operator has forgotten the machine")
        if machine in self.machines.hosts.machines:
            self.machines.hosts.forget(machine)
        elif not was_known:
            raise NotFound(f"no machine {machine!r} is known", param="machine")

    def _rest(self, machine: str) -> None:
        self._do(self._rested(machine), f"drain of {machine}")

    async def _rested(self, machine: str) -> None:
        try:
            await self._move_workers(machine, not_followed)
        except RequestError as err:
            logger.warning("machine_not_drained machine=%s: %s", machine, err)

    async def _move_workers(self, machine: str, tell: OnReplacement) -> None:
        if self._fleet is None:
            return
        moved = set[WorkerName]()  # the old one of another model's may drain for long
        while name := next((one for one in self._workers_on(machine) if one not in moved), None):
            moved.add(name)
            await self._fleet.restart(name, tell=tell)

    def _workers_on(self, machine: str) -> Iterator[WorkerName]:
        rows = self._fleet.workers() if self._fleet is not None else []
        return (row.name for row in rows if row.machine == machine)

    def _row(self, machine: Machine) -> HostStatus:
        joined = self.machines.joined_now.get(machine.name)
        hello = joined.channel.hello if joined else None
        heard_s = time.monotonic() - joined.channel.heard_at if joined else 0.0
        return HostStatus(
            machine=machine.name,
            state=machine.state(time.monotonic()),
            detail=self._explained(machine),
            workers=tuple(self._workers_on(machine.name)),
            max_workers=self._config.workers_per_machine,
            cores=hello.cores if hello else 0,
            memory_bytes=hello.memory_bytes if hello else 0,
            devices=tuple(one.name for one in hello.devices) if hello else (),
            version=hello.version if hello else "",
            heard_at=time.time() - heard_s if joined else None,
            n_losses=machine.n_losses,
        )

    def _explained(self, machine: Machine) -> str:
        parts = [*self.machines.prepared_on(machine.name), machine.explained(time.monotonic())]
        return "; ".join(filter(None, parts))

    def _reached(self) -> str:
        """The address of the listener, whose port may have been 0."""
        bound = self._listener.endpoint if self._listener is not None else self._address
        return bound.removeprefix("tcp://")


def _loads(fleet: Fleet, load: Callable[[str], None], worker: WorkerName) -> bool:
    """Have the model of a worker loaded, if that gets a line of this worker's name."""
    model = fleet.model_without(worker)
    if model is not None:
        load(model)
    return model is not None
