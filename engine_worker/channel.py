"""The worker's end of the link: one thread between the DEALER socket and the other threads.

This thread receives, and sends what has to wait. Other threads call `send`, which hands a message
to the socket at once if it can: where all cores compute, to wake up a thread for that takes longer
than all of the rest. It never blocks: a full socket would otherwise stop the engine thread, which
would look like a hang.

A ZeroMQ socket may be used by one thread at a time. So each use holds `_lock`, and the thread waits
on descriptors, not on the socket. They announce changes only once (zmq_getsockopt(3), ZMQ_FD), and
a send may take the announcement of a message: who sends looks for one.
"""

import contextlib
import logging
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

import zmq

from gpufc import wire
from gpufc.errors import LinkError
from gpufc.ids import Epoch
from gpufc.protocol import (
    HEARTBEAT_S,
    MAX_MESSAGE_BYTES,
    FromWorker,
    Heartbeat,
    Hello,
    ToWorker,
)

logger = logging.getLogger(__name__)

HIGH_WATER_MARK = 10_000
"""Messages that the socket holds in each direction; further ones wait in `_outbox`."""

# plain numbers: an operation on pyzmq's flags costs more than one on the socket
_POLLIN, _POLLOUT, _NOBLOCK = map(int, (zmq.POLLIN, zmq.POLLOUT, zmq.NOBLOCK))

SENT_POLL_S = 0.005
"""How often `wait_sent` looks."""


class Channel:
    """Sends messages in the given order, and a heartbeat every `HEARTBEAT_S`.

    `on_message` is called in the channel's thread with every message of this epoch, and must not
    block. `heartbeat` makes the current heartbeat. There is one connection: the front accepts
    no second one, so a cut ends the worker.
    """

    def __init__(
        self,
        endpoint: str,
        hello: Hello,
        *,
        on_message: Callable[[ToWorker], None],
        heartbeat: Callable[[], Heartbeat],
    ) -> None:
        self._endpoint = endpoint
        self._epoch: Epoch = hello.epoch
        self._on_message = on_message
        self._heartbeat = heartbeat
        self._outbox: deque[bytes] = deque([wire.encode(hello)])
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._has_moved = False
        self._lock = threading.Lock()
        self._socket: zmq.Socket[bytes] | None = None

    def move(self, endpoint: str, epoch: Epoch, first: Iterable[FromWorker]) -> None:
        """Leave the link for another one, and send `first` there first. In `on_message` only.

        Other threads may still send messages of the old epoch: the new front drops them.
        """
        with self._lock:
            self._socket = None  # `first` is not for the old front
            self._endpoint, self._epoch = endpoint, epoch
            self._outbox = deque(wire.encode(message) for message in first)
            self._has_moved = True

    def send(self, message: FromWorker) -> None:
        """Queue a message, from any thread. The order of each calling thread is kept."""
        self.send_bytes(wire.encode(message))

    def send_bytes(self, data: bytes) -> None:
        """Queue a message that is encoded already."""
        self._outbox.append(data)
        if not self._sent_now():
            os.eventfd_write(self._wakeup, 1)

    def wait_sent(self, timeout_s: float) -> None:
        """Wait until the socket has taken everything that was queued, at most for `timeout_s`. Not
        for the channel's own thread."""
        deadline = time.monotonic() + timeout_s
        while self._outbox and time.monotonic() < deadline:
            time.sleep(SENT_POLL_S)

    def run(self) -> None:
        """Serve the socket until the process ends.

        Raises `LinkError` for a broken message, and when the front has cut the connection.
        """
        while True:
            self._has_moved = False
            socket, cut, poll = self._connect()
            try:
                self._serve(socket, cut, poll)
            finally:
                self._leave(socket, cut)

    def _serve(
        self, socket: "zmq.Socket[bytes]", cut: "zmq.Socket[bytes]", poll: select.poll
    ) -> None:
        """Serve one link, until the channel is moved to another one."""
        next_beat = time.monotonic()
        while not self._has_moved:
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + HEARTBEAT_S
                self._outbox.append(wire.encode(self._heartbeat()))
            with self._lock:
                self._flush(socket)
            self._receive_all(socket)
            if self._has_moved:
                return
            if _is_readable(cut):
                raise LinkError("the front has cut the link")
            if self._has_more(socket):
                continue
            poll.poll(max(0, math.ceil((next_beat - time.monotonic()) * 1000)))
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)

    def _connect(self) -> "tuple[zmq.Socket[bytes], zmq.Socket[bytes], select.poll]":
        """The socket, a monitor that becomes readable when its connection is cut, and what waits
        for both and for other threads."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        cut = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        socket.connect(self._endpoint)
        poll = select.poll()
        for descriptor in (self._wakeup, socket.getsockopt(zmq.FD), cut.getsockopt(zmq.FD)):
            poll.register(int(descriptor), select.POLLIN)
        with self._lock:
            self._socket = socket
        return socket, cut, poll

    def _leave(self, socket: "zmq.Socket[bytes]", cut: "zmq.Socket[bytes]") -> None:
        with self._lock:
            self._socket = None
            socket.disable_monitor()
            for each in (cut, socket):
                each.close(linger=0)

    def _sent_now(self) -> bool:
        """Whether the calling thread could send all that is queued, and has taken no announcement
        from the channel's thread."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            socket = self._socket
            return socket is not None and self._flush(socket) and not _is_readable(socket)
        finally:
            self._lock.release()

    def _flush(self, socket: "zmq.Socket[bytes]") -> bool:
        """Send what is queued; false if the socket is full. With the lock."""
        while self._outbox:
            try:
                socket.send(self._outbox[0], _NOBLOCK)
            except zmq.Again:
                return False
            self._outbox.popleft()
        return True

    def _has_more(self, socket: "zmq.Socket[bytes]") -> bool:
        """Whether there is something to receive or to send, which no descriptor may announce any
        more: a flush may have taken the announcement of a message, a receipt that of room."""
        with self._lock:
            events = int(socket.getsockopt(zmq.EVENTS))
            return bool(events & _POLLIN or (self._outbox and events & _POLLOUT))

    def _receive_all(self, socket: "zmq.Socket[bytes]") -> None:
        while not self._has_moved:
            with self._lock:
                data = socket.recv(_NOBLOCK) if _is_readable(socket) else None
            if data is None:
                return
            message = wire.decode_to_worker(data)
            if message.epoch == self._epoch:
                self._on_message(message)
            else:
                logger.warning("message_dropped reason=epoch got=%d", message.epoch)


def _is_readable(socket: "zmq.Socket[bytes]") -> bool:
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _POLLIN)
