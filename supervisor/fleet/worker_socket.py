"""One end of the link to one worker process of this machine: a socket with one peer.

A ROUTER bound on a fresh ipc path. The first peer whose first message is admitted is *the* peer;
messages of other peers are dropped. A second bind on an ipc path would silently steal it. To
prevent that, the path is random, is never reused, and lies in a folder that only the holder of its
lock uses (`supervisor/runtime_dir.py`).

The front puts a worker's protocol above it (`link.WorkerLink`). A worker host relays the bytes.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import zmq

from gpufc.protocol import MAX_MESSAGE_BYTES
from gpufc.wire import Buffer
from supervisor.socket_reader import SocketReader

logger = logging.getLogger(__name__)

SEND_LIMIT = 100_000
"""Messages that may wait for a worker that does not read. A worker that is stopped for some seconds
stays far below; one that never reads again counts as hung earlier."""

RECEIVE_LIMIT = 10_000
UNREACHABLE_S = 1.0
"""How long a peer may be gone from the link. A dying peer's exit comes within milliseconds, and has
a better reason."""

LEAST_UNCOPIED = 1 << 20
"""Bytes of a message that is read where ZeroMQ has put it. To copy tens of megabytes holds the loop
for tens of milliseconds; for a small message a view costs more than a copy."""

_NOBLOCK, _SNDMORE = map(int, (zmq.NOBLOCK, zmq.NOBLOCK | zmq.SNDMORE))


class WorkerSocket:
    """Open from construction until `close`. All methods belong to the event loop's thread."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        path: Path,
        *,
        admit: Callable[[Buffer], bool],
        on_message: Callable[[Buffer], None],
        on_fault: Callable[[str], None],
    ) -> None:
        """`admit` gets each message of a peer before there is *the* peer, and says whether it is
        the worker's first one. `on_fault` may be called several times. Raises `zmq.ZMQError`."""
        self.endpoint = f"ipc://{path}"
        self.n_unsent = 0
        self.n_strangers = 0
        self._path = path
        self._admit = admit
        self._on_message = on_message
        self._on_fault = on_fault
        self._peer: bytes | None = None
        self._closed = False
        self._unreachable: asyncio.TimerHandle | None = None
        self._socket = _bound(context, self.endpoint)
        self.reader = SocketReader(self._socket, self._take)

    def send(self, data: Buffer) -> None:
        """Queue a message for the peer; without one it is dropped. Never blocks."""
        if self._peer is None or self._closed:
            self.n_unsent += 1
            return
        try:
            self._socket.send(self._peer, _SNDMORE)
            self._socket.send(data, _NOBLOCK)
        except zmq.Again:
            self._on_fault(f"{SEND_LIMIT} messages wait and the worker does not read")
        except zmq.ZMQError as err:
            self.n_unsent += 1
            logger.debug("message not sent endpoint=%s: %s", self.endpoint, err)
            if self._unreachable is None:
                loop = asyncio.get_running_loop()
                self._unreachable = loop.call_later(UNREACHABLE_S, self._peer_is_gone)
        self.reader.look_soon()

    def drain_now(self) -> None:
        """Hand over all messages that have arrived, such as the last ones of a dead process."""
        self.reader.read_now()

    def close(self) -> None:
        """Close the socket and remove its file. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._unreachable is not None:
            self._unreachable.cancel()
        self.reader.close()
        self._socket.close(linger=0)
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _take(self) -> None:
        receive, option = self._socket.recv, self._socket.getsockopt
        sender = receive(_NOBLOCK)
        frame = receive(_NOBLOCK, copy=False)
        data: Buffer = frame.bytes if len(frame) < LEAST_UNCOPIED else frame.buffer
        while option(zmq.RCVMORE):
            receive(_NOBLOCK)
            data = b""  # no worker sends several frames: an empty message breaks its protocol
        if sender == self._peer:
            self._on_message(data)
        elif self._peer is not None:
            self.n_strangers += 1
        elif self._admit(data):
            self._peer = sender

    def _peer_is_gone(self) -> None:
        self._unreachable = None
        self._on_fault("the worker has left the link")


def _bound(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.SNDHWM, SEND_LIMIT)
    socket.setsockopt(zmq.RCVHWM, RECEIVE_LIMIT)
    before = os.umask(0o077)
    try:
        socket.bind(endpoint)
    except BaseException:
        socket.close(linger=0)
        raise
    finally:
        os.umask(before)
    return socket
