"""The words between the front's end of a host's connection and its user in the fleet.

`listener.HostListener` accepts hosts and makes one `HostChannel` for each. Everything is called in
the event loop's thread, and nothing waits.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from gpufc.ids import Epoch
from supervisor.cluster.messages import Adoption, FromHost, HostHello, ToHost

FrameListener = Callable[[memoryview], None]
"""Gets the bytes of one message of a worker, undecoded. The view stays valid."""


class HostChannel(Protocol):
    """One joined host's connection, from its hello until it is lost. A lost host that comes back
    gets a new channel."""

    machine: str
    """The host's name at this front: unique, and the same after the host has come back."""

    hello: HostHello
    is_new: bool
    """Whether it came by an invitation, not by a key that it had joined with before."""

    heard_at: float
    """When the last frame of any kind came, on the monotonic clock."""

    @property
    def is_lost(self) -> bool: ...

    def send(self, message: ToHost) -> None:
        """Queue a control message; on a lost channel it is dropped. Raises `LinkError` if it is too
        large. A host that does not read loses its connection: `lost` is called soon."""
        ...

    def send_frame(self, epoch: Epoch, payload: bytes) -> None:
        """Queue one message for a worker's link, as `send`."""
        ...

    def listen(self, epoch: Epoch, on_frame: FrameListener) -> None:
        """Hear a worker's frames from now on. Frames of other epochs are dropped and counted."""
        ...

    def unlisten(self, epoch: Epoch) -> None:
        """Drop that worker's frames from now on. May be called again."""
        ...

    def cut(self, reason: str) -> None:
        """Close the connection. `lost` is called before this returns."""
        ...


class Hosts(Protocol):
    """The user of the channels. Its methods must not raise."""

    def is_early(self, hello: HostHello) -> bool:
        """Whether a host should dial again: lines that its workers fit will be there soon."""
        ...

    def joined(self, channel: HostChannel) -> Sequence[Adoption]:
        """A host has said hello. The result goes into its `Welcome`: held workers to go on with.

        Their frames may come right after this call."""
        ...

    def message(self, channel: HostChannel, message: FromHost) -> None:
        """A control message of a joined host, in order with its frames. Never a `HostHello`."""
        ...

    def lost(self, channel: HostChannel, reason: str) -> None:
        """The connection is gone or given up: all its epochs are lost. Called once."""
        ...
