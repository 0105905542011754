"""A front's user of channels that remembers what hosts say, and the hello of a host."""

import asyncio
from collections.abc import Callable, Sequence

from gpufc.ids import Epoch
from gpufc.protocol import PROTOCOL_VERSION
from supervisor.cluster.messages import HOST_PROTOCOL, Adoption, FromHost, HostHello
from supervisor.cluster.port import HostChannel


class Recorder:
    """Implements `port.Hosts`. `frames` are the relayed messages by epoch."""

    def __init__(self) -> None:
        self.channels: list[HostChannel] = []
        self.messages: list[FromHost] = []
        self.frames: dict[Epoch, list[bytes]] = {}
        self.losses: list[str] = []
        self.adopt: Callable[[HostChannel], Sequence[Adoption]] = lambda channel: ()
        self._changed = asyncio.Event()

    @property
    def channel(self) -> HostChannel:
        return self.channels[-1]

    def is_early(self, hello: HostHello) -> bool:
        return False

    def joined(self, channel: HostChannel) -> Sequence[Adoption]:
        self.channels.append(channel)
        self.wake()
        return self.adopt(channel)

    def message(self, channel: HostChannel, message: FromHost) -> None:
        self.messages.append(message)
        self.wake()

    def lost(self, channel: HostChannel, reason: str) -> None:
        self.losses.append(reason)
        self.wake()

    def listen(self, epoch: int) -> None:
        """Remember the frames of an epoch."""
        found = self.frames.setdefault(Epoch(epoch), [])

        def take(data: memoryview) -> None:
            found.append(bytes(data))
            self.wake()

        self.channel.listen(Epoch(epoch), take)

    def of(self, kind: type) -> list[FromHost]:
        return [message for message in self.messages if isinstance(message, kind)]

    async def until(self, holds: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Wait for a condition that only calls of this object can change."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                await self._changed.wait()

    def wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def hello(key: str, *, run: str = "run-1", machine: str = "node", protocol: int = HOST_PROTOCOL):  # type: ignore[no-untyped-def]
    return HostHello(protocol, PROTOCOL_VERSION, "0", run, key, machine, 4, 1 << 30)
