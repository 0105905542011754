"""A host's connection that a test controls."""

from gpufc import wire
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import PROTOCOL_VERSION, Hello, Message
from supervisor.cluster.messages import (
    HOST_PROTOCOL,
    Exited,
    Held,
    HostHello,
    Signal,
    Spawn,
    Spawned,
    ToHost,
)
from supervisor.cluster.port import FrameListener
from supervisor.fleet.placer import PlaceListener
from supervisor.remote.machines import Machines


class FakeChannel:
    """Implements `cluster.port.HostChannel`, and speaks for the host."""

    def __init__(self, machine: str, hosts: Machines, held: tuple[Held, ...] = ()) -> None:
        self.machine = machine
        self.hello = HostHello(
            HOST_PROTOCOL, PROTOCOL_VERSION, "1", "run", "0" * 64, machine, 4, 1 << 30, held=held
        )
        self.heard_at = 0.0
        self.is_new = False
        self.is_lost = False
        self.sent: list[ToHost] = []
        self.frames: list[tuple[Epoch, bytes]] = []
        self.listeners: dict[Epoch, FrameListener] = {}
        self._hosts = hosts

    # of the port

    def send(self, message: ToHost) -> None:
        self.sent.append(message)

    def send_frame(self, epoch: Epoch, payload: bytes) -> None:
        self.frames.append((epoch, payload))

    def listen(self, epoch: Epoch, on_frame: FrameListener) -> None:
        self.listeners[epoch] = on_frame

    def unlisten(self, epoch: Epoch) -> None:
        self.listeners.pop(epoch, None)

    def cut(self, reason: str) -> None:
        self.lose(reason)

    # the host

    def lose(self, reason: str = "the connection was closed") -> None:
        self.is_lost = True
        self._hosts.lost(self, reason)

    def spawns(self) -> list[Spawn]:
        """The starts that were asked for."""
        return [message for message in self.sent if isinstance(message, Spawn)]

    def signals(self) -> list[Signal]:
        return [message for message in self.sent if isinstance(message, Signal)]

    def say(self, message: Message) -> None:
        """A worker's message on its link."""
        self.listeners[message.epoch](memoryview(wire.encode(message)))

    def bring_up(self, pid: int = 100) -> Epoch:
        """The last start succeeds, and the worker says hello."""
        boot = self.spawns()[-1].boot
        self._hosts.message(self, Spawned(boot.epoch, pid))
        self.say(Hello(boot.epoch, PROTOCOL_VERSION, boot.token, pid))
        return boot.epoch

    def end(self, epoch: Epoch, si_code: int, si_status: int, log: bytes = b"") -> None:
        self._hosts.message(self, Exited(epoch, si_code, si_status, False, log))


def listening(told: list[str]) -> PlaceListener:
    """The functions of a line, noted: `found`, or the text of what is awaited or prepared."""
    return PlaceListener(
        found=lambda: told.append("found"), awaits=told.append, prepares=told.append
    )


def held(worker: WorkerName, digest: str, pid: int = 100, epoch: int = 99) -> Held:
    return Held(Epoch(epoch), pid, worker, digest)
