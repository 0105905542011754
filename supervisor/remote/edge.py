"""How the runner of one line gets a machine, a link and a process on it.

Implements `edge.Edge` and `placer.Placer` of the fleet. `machines.Machines` finds the machine.
"""

import asyncio
import signal
from typing import Protocol

from msgspec import Struct

from gpufc.ids import Epoch, WorkerName
from supervisor.cluster.messages import Signal
from supervisor.cluster.port import HostChannel
from supervisor.cluster.wire import boot_digest
from supervisor.fleet.edge import ExitListener
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.peer import BrokenListener, MessageListener
from supervisor.fleet.placer import PlaceListener
from supervisor.fleet.worker import WorkerSpec
from supervisor.remote.link import RemoteLink
from supervisor.remote.process import RemoteProcess, on_devices


class Adopted(Struct):
    """A running process that its host has brought: its link begins with a hello of this token.

    `early` are its frames from before the link was opened."""

    pid: int
    token: str
    early: list[memoryview]


class Found(Struct, frozen=True):
    """A machine for one process. `devices` are its GPUs there; None for all."""

    channel: HostChannel
    devices: str | None = None
    adopted: Adopted | None = None


class Seeker(Protocol):
    """A line that needs a machine for its next process."""

    @property
    def spec(self) -> WorkerSpec: ...

    def digest(self, devices: str | None) -> str:
        """Of the boot message that it would send for a place with these GPUs."""
        ...

    def found(self, found: Found) -> None:
        """There is a machine, and room on it is reserved."""
        ...

    def awaits(self, text: str) -> None:
        """No machine has room now."""
        ...

    def prepares(self, text: str) -> None:
        """A machine has room, and gets the model's files."""
        ...


class MachinePort(Protocol):
    """The edge's part of `machines.Machines`."""

    def seek(self, epoch: Epoch, seeker: Seeker) -> None:
        """Find a machine. The answer comes later than this call."""
        ...

    def withdraw(self, epoch: Epoch) -> None:
        """Seek no more, or give the reserved room back. May be called again."""
        ...

    def avoid(self, machine: str, model: str, reason: str) -> None:
        """The machine could not start a process of the model."""
        ...

    def runs(self, epoch: Epoch, process: RemoteProcess, link: RemoteLink) -> None:
        """Hear of the process from its host from now on, until its end."""
        ...


class RemoteEdge:
    """The edge of one line: at most one process, on one machine, at a time."""

    def __init__(self, machines: MachinePort) -> None:
        self._machines = machines
        self._spec: WorkerSpec | None = None
        self._epoch = Epoch(0)
        self._told: PlaceListener | None = None
        self._found: Found | None = None
        self._link: RemoteLink | None = None
        self._process: RemoteProcess | None = None

    # of `placer.Placer`

    def place(self, epoch: Epoch, spec: WorkerSpec, told: PlaceListener, avoid: str = "") -> None:
        if avoid and self._found is not None:
            self._machines.avoid(self._found.channel.machine, spec.model, avoid)
        self._epoch, self._spec, self._told, self._found = epoch, spec, told, None
        self._machines.seek(epoch, self)

    def unplace(self) -> None:
        self._told = None
        found, epoch = self._found, self._epoch
        if found is not None and found.adopted is not None:  # no process of a line: end it
            found.channel.unlisten(epoch)
            found.channel.send(Signal(epoch, signal.SIGKILL, group=True))
        self._machines.withdraw(epoch)

    # of `edge.Edge`

    def open_link(
        self, epoch: Epoch, token: str, *, on_message: MessageListener, on_broken: BrokenListener
    ) -> RemoteLink:
        """A link over the connection of the machine that was found."""
        found = self._of_now()
        adopted = found.adopted
        link = RemoteLink(
            found.channel,
            epoch,
            token if adopted is None else adopted.token,
            on_message=on_message,
            on_broken=on_broken,
        )
        self._link = link
        return link

    def spawn(
        self, worker: WorkerName, on_exit: ExitListener, on_ending: ExitListener
    ) -> RemoteProcess:
        """A process that its host starts at the boot message, or that runs there already."""
        found, link = self._of_now(), self._link
        if link is None:
            raise AssertionError("a process without a link")
        adopted = found.adopted
        process = self._process = RemoteProcess(
            found.channel,
            self._epoch,
            on_exit,
            link.expect,
            on_ending=on_ending,
            pid=None if adopted is None else adopted.pid,
            devices=found.devices,
        )
        loop = asyncio.get_running_loop()
        if found.channel.is_lost:
            gone = ExitReason(reason=Reason.SPAWN_FAILED, at=0.0, detail="the machine was lost")
            loop.call_soon(process.ended, gone)
            return process
        self._machines.runs(self._epoch, process, link)
        if adopted is not None:
            loop.call_soon(_replay, link, adopted.early)
        return process

    def log_mark(self, worker: WorkerName) -> int:
        """The host sends the end of the log with the end of the process."""
        return 0

    def log_since(self, worker: WorkerName, mark: int) -> bytes:
        return self._process.log if self._process is not None else b""

    # of `Seeker`

    @property
    def spec(self) -> WorkerSpec:
        """That of the process which it seeks a machine for."""
        if self._spec is None:
            raise AssertionError("it seeks no machine")
        return self._spec

    def digest(self, devices: str | None) -> str:
        return boot_digest(on_devices(self.spec.boot(self._epoch, "", ""), devices))

    def found(self, found: Found) -> None:
        self._found = found
        if self._told is not None:
            self._told.found()

    def awaits(self, text: str) -> None:
        if self._told is not None:
            self._told.awaits(text)

    def prepares(self, text: str) -> None:
        if self._told is not None:
            self._told.prepares(text)

    def _of_now(self) -> Found:
        if self._found is None:
            raise AssertionError("a process without a machine")
        return self._found


def _replay(link: RemoteLink, early: list[memoryview]) -> None:
    for data in early:
        link.receive(data)
    early.clear()
