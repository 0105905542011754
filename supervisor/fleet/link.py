"""The front's end of the link to one worker process: one socket, one epoch, one peer.

A ROUTER bound on a fresh ipc path. The first peer with a hello of the right token, epoch and pid is
*the* peer; messages of other peers are dropped and counted. A second bind on an ipc path would
silently steal it. To prevent that, the path is random, is never reused, and lies in a folder that
only the holder of the front's lock uses (`supervisor/runtime_dir.py`).

The link does not know the worker's state: it hands messages over, and reports a broken protocol.
All methods belong to the event loop's thread.
"""

import asyncio
import contextlib
import hmac
import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import zmq

from gpufc import wire
from gpufc.errors import LinkError
from gpufc.ids import Epoch
from gpufc.protocol import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    FromWorker,
    Hello,
    ToWorker,
)

logger = logging.getLogger(__name__)

MESSAGES_PER_TURN = 256
"""Messages of one worker that are handled before the loop serves other tasks."""

MAX_HELLO_BYTES = 4096
SEND_LIMIT = 100_000
"""Messages that may wait for a worker that does not read. A worker that is stopped for some seconds
stays far below; one that never reads again counts as hung earlier."""

RECEIVE_LIMIT = 10_000
UNREACHABLE_S = 1.0
"""How long a peer may be gone from the link. A dying peer's exit comes within milliseconds, and has
a better reason."""

# plain numbers: an operation on pyzmq's flags costs more than one on the socket
_POLLIN, _NOBLOCK, _SNDMORE = map(int, (zmq.POLLIN, zmq.NOBLOCK, zmq.NOBLOCK | zmq.SNDMORE))

MessageListener = Callable[[FromWorker], None]
BrokenListener = Callable[[str, bool], None]
"""Called once at most, with the fault and whether a new process might do better."""


class WorkerLink:
    """Open from construction until `close`. After the peer has broken the protocol, messages from
    it and to it are dropped."""

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
        self.endpoint = f"ipc://{path}"
        self.dropped: Counter[str] = Counter()
        self._path = path
        self._epoch = epoch
        self._token = token.encode()
        self._pid: int | None = None
        self._on_message = on_message
        self._on_broken = on_broken
        self._peer: bytes | None = None
        self._broken = False
        self._closed = False
        self._draining = False
        self._unreachable: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._socket = _bound(context, self.endpoint)
        self._fd = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._drain)
        self._drain_soon()

    def expect(self, pid: int) -> None:
        """Accept the hello of this process. Until then no hello is accepted."""
        self._pid = pid

    def send(self, message: ToWorker) -> None:
        """Queue a message for the peer; without one it is dropped. Never blocks.

        Raises `LinkError` if the message is over the size limit.
        """
        data = wire.encode(message)
        if self._peer is None or self._closed or self._broken:
            self.dropped["unsent"] += 1
            return
        try:
            self._socket.send(self._peer, _SNDMORE)
            self._socket.send(data, _NOBLOCK)
        except zmq.Again:
            self._break(f"{SEND_LIMIT} messages wait and the worker does not read")
        except zmq.ZMQError as err:
            self.dropped["unsent"] += 1
            logger.debug("message not sent epoch=%d: %s", self._epoch, err)
            if self._unreachable is None:
                self._unreachable = self._loop.call_later(UNREACHABLE_S, self._peer_is_gone)
        # sending may have swallowed the descriptor's wake-up: look for messages
        self._drain_soon()

    def drain_now(self) -> None:
        """Hand over all messages that have arrived, such as the last ones of a dead process."""
        while not self._closed and self._receive():
            pass

    def close(self) -> None:
        """Close the socket and remove its file. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._unreachable is not None:
            self._unreachable.cancel()
        self._loop.remove_reader(self._fd)
        self._socket.close(linger=0)
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _drain_soon(self) -> None:
        if not self._draining:
            self._draining = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Hand over messages until the socket is empty: only then does its descriptor announce the
        next one (it is edge-triggered, zmq_getsockopt(3))."""
        self._draining = False
        for _ in range(MESSAGES_PER_TURN):
            if self._closed or not self._receive():
                return
        self._drain_soon()

    def _receive(self) -> bool:
        """Take one message from the socket; False if there was none."""
        receive, option = self._socket.recv, self._socket.getsockopt
        # a question costs a third of an exception, and each wake-up ends with an empty socket
        if not int(option(zmq.EVENTS)) & _POLLIN:
            return False
        sender = receive(_NOBLOCK)
        data = receive(_NOBLOCK)
        whole = True
        while option(zmq.RCVMORE):
            receive(_NOBLOCK)
            whole = False
        if self._broken:
            self.dropped["after_break"] += 1
        elif sender != self._peer:
            self._stranger(sender, data)
        elif whole:
            self._from_peer(data)
        else:
            self._break("message of several frames")
        return True

    def _from_peer(self, data: bytes) -> None:
        try:
            message = wire.decode_from_worker(data)
        except LinkError as err:
            self._break(str(err))
            return
        if message.epoch != self._epoch:
            self.dropped["stale"] += 1
            return
        self._on_message(message)

    def _stranger(self, sender: bytes, data: bytes) -> None:
        """Accept the peer, or drop another peer's message."""
        hello = self._hello_in(data) if self._peer is None else None
        if hello is None:
            self.dropped["stranger"] += 1
            if self.dropped["stranger"] == 1:  # one line each would flood the log
                logger.warning("message_dropped reason=stranger epoch=%d", self._epoch)
        elif hello.protocol != PROTOCOL_VERSION:
            self._break(
                f"the worker speaks protocol {hello.protocol}, the front {PROTOCOL_VERSION}: "
                "they are of different versions of gpufc",
                retryable=False,
            )
        else:
            self._peer = sender
            self._on_message(hello)

    def _hello_in(self, data: bytes) -> Hello | None:
        """The hello of the process that was started; None for any other message."""
        if len(data) > MAX_HELLO_BYTES:
            return None
        try:
            hello = wire.decode_from_worker(data)
        except LinkError:
            return None
        if not isinstance(hello, Hello):
            return None
        proven = hmac.compare_digest(hello.token.encode(), self._token)
        return hello if proven and hello.epoch == self._epoch and hello.pid == self._pid else None

    def _peer_is_gone(self) -> None:
        self._unreachable = None
        self._break("the worker has left the link")

    def _break(self, detail: str, *, retryable: bool = True) -> None:
        if not self._broken:
            self._broken = True
            self._on_broken(detail, retryable)


def _bound(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
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
