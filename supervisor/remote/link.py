"""The front's end of the link to a worker on another machine, over its host's connection.

`supervisor.fleet.peer` has the protocol. The host keeps the worker's socket and relays its frames.
"""

from collections import Counter

from gpufc import wire
from gpufc.ids import Epoch
from gpufc.protocol import ToWorker
from supervisor.cluster.port import HostChannel
from supervisor.fleet.peer import BrokenListener, MessageListener, Peer


class RemoteLink:
    """Open from construction until `close`. Implements `edge.Link`. In the event loop's thread."""

    endpoint = ""
    """The host sets its own."""

    def __init__(
        self,
        channel: HostChannel,
        epoch: Epoch,
        token: str,
        *,
        on_message: MessageListener,
        on_broken: BrokenListener,
    ) -> None:
        self._channel = channel
        self._epoch = epoch
        self._peer = Peer(epoch, token, on_message=on_message, on_broken=on_broken)
        self._is_greeted = False
        self._is_closed = False
        channel.listen(epoch, self.receive)

    @property
    def dropped(self) -> Counter[str]:
        """The messages that were not delivered, by reason."""
        return self._peer.dropped

    def expect(self, pid: int) -> None:
        """Accept the hello of this process. Until then no hello is accepted."""
        self._peer.expect(pid)

    def receive(self, data: memoryview) -> None:
        """One message of the worker."""
        if self._is_closed:
            return
        if self._is_greeted:
            self._peer.receive(data)
        else:
            self._is_greeted = self._peer.greet(data)

    def fail(self, detail: str) -> None:
        """The worker has left its link."""
        self._peer.fail(detail)

    def send(self, message: ToWorker) -> None:
        """Queue a message; before the hello and after a break it is dropped. Never blocks.

        Raises `LinkError` if the message is over the size limit.
        """
        data = wire.encode(message)
        if self._is_greeted and not self._peer.is_broken and not self._is_closed:
            self._channel.send_frame(self._epoch, data)

    def drain_now(self) -> None:
        """Nothing waits: the host reports an exit after the worker's last frame."""

    def close(self) -> None:
        """Drop later frames. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            self._channel.unlisten(self._epoch)
