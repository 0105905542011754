"""The front's end of the link to one worker process of this machine: one socket, one peer.

`worker_socket` has the socket, `peer` the protocol.
"""

from collections import Counter
from pathlib import Path

import zmq

from gpufc import wire
from gpufc.ids import Epoch
from gpufc.protocol import ToWorker
from supervisor.fleet.peer import BrokenListener, MessageListener, Peer
from supervisor.fleet.worker_socket import WorkerSocket


class WorkerLink:
    """Open from construction until `close`. After the peer has broken the protocol, messages from
    it and to it are dropped. All methods belong to the event loop's thread."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        path: Path,
        epoch: Epoch,
        token: str,
        *,
        on_message: MessageListener,
        on_broken: BrokenListener,
    ) -> None:
        self._peer = Peer(epoch, token, on_message=on_message, on_broken=on_broken)
        self._socket = WorkerSocket(
            context,
            path,
            admit=self._peer.greet,
            on_message=self._peer.receive,
            on_fault=self._peer.fail,
        )
        self.endpoint = self._socket.endpoint

    @property
    def dropped(self) -> Counter[str]:
        """The messages that were not delivered, by reason."""
        of_socket = Counter(unsent=self._socket.n_unsent, stranger=self._socket.n_strangers)
        return self._peer.dropped + of_socket

    def expect(self, pid: int) -> None:
        """Accept the hello of this process. Until then no hello is accepted."""
        self._peer.expect(pid)

    def send(self, message: ToWorker) -> None:
        """Queue a message for the peer; without one it is dropped. Never blocks.

        Raises `LinkError` if the message is over the size limit.
        """
        data = wire.encode(message)
        if not self._peer.is_broken:
            self._socket.send(data)

    def drain_now(self) -> None:
        """Hand over all messages that have arrived, such as the last ones of a dead process."""
        self._socket.drain_now()

    def close(self) -> None:
        """Close the socket and remove its file. May be called again."""
        self._socket.close()
