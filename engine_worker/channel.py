"""The worker's end of the link: one thread between the DEALER socket and the other threads.

The socket belongs to this thread alone. Other threads call `send`, which never blocks: a full
socket would otherwise stop the engine thread, which would look like a hang.
"""

import logging
import math
import os
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

    def move(self, endpoint: str, epoch: Epoch, first: Iterable[FromWorker]) -> None:
        """Leave the link for another one, and send `first` there first. In `on_message` only.

        Other threads may still send messages of the old epoch: the new front drops them.
        """
        self._endpoint, self._epoch = endpoint, epoch
        self._outbox = deque(wire.encode(message) for message in first)
        self._has_moved = True

    def send(self, message: FromWorker) -> None:
        """Queue a message, from any thread. The order of each calling thread is kept."""
        self.send_bytes(wire.encode(message))

    def send_bytes(self, data: bytes) -> None:
        """Queue a message that is encoded already."""
        self._outbox.append(data)
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
        poller = zmq.Poller()
        poller.register(self._wakeup, zmq.POLLIN)
        while True:
            self._has_moved = False
            socket, cut = self._connect(poller)
            try:
                self._serve(poller, socket, cut)
            finally:
                _leave(poller, socket, cut)

    def _serve(
        self, poller: zmq.Poller, socket: "zmq.Socket[bytes]", cut: "zmq.Socket[bytes]"
    ) -> None:
        """Serve one link, until the channel is moved to another one."""
        next_beat = time.monotonic()
        while not self._has_moved:
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + HEARTBEAT_S
                self._outbox.append(wire.encode(self._heartbeat()))
            self._flush(socket, poller)
            wait_ms = max(0, math.ceil((next_beat - time.monotonic()) * 1000))
            events = dict(poller.poll(wait_ms))
            if self._wakeup in events:
                os.eventfd_read(self._wakeup)
            if events.get(socket, 0) & zmq.POLLIN:
                self._receive_all(socket)
            if cut in events and not self._has_moved:
                raise LinkError("the front has cut the link")

    def _connect(self, poller: zmq.Poller) -> "tuple[zmq.Socket[bytes], zmq.Socket[bytes]]":
        """The socket, and a monitor that becomes readable when its connection is cut."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        cut = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        socket.connect(self._endpoint)
        poller.register(socket, zmq.POLLIN)
        poller.register(cut, zmq.POLLIN)
        return socket, cut

    def _flush(self, socket: "zmq.Socket[bytes]", poller: zmq.Poller) -> None:
        while self._outbox:
            try:
                socket.send(self._outbox[0], zmq.NOBLOCK)
            except zmq.Again:
                poller.register(socket, zmq.POLLIN | zmq.POLLOUT)
                return
            self._outbox.popleft()
        poller.register(socket, zmq.POLLIN)

    def _receive_all(self, socket: "zmq.Socket[bytes]") -> None:
        while not self._has_moved:
            try:
                data = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            message = wire.decode_to_worker(data)
            if message.epoch == self._epoch:
                self._on_message(message)
            else:
                logger.warning("message_dropped reason=epoch got=%d", message.epoch)


def _leave(poller: zmq.Poller, socket: "zmq.Socket[bytes]", cut: "zmq.Socket[bytes]") -> None:
    socket.disable_monitor()
    for each in (cut, socket):
        poller.unregister(each)
        each.close(linger=0)
