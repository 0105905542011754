"""The worker's end of the link: one thread between the DEALER socket and the other threads.

The socket belongs to this thread alone. Others hand messages over through `send`, which never
blocks: a full socket would otherwise stop the engine thread and look like a hang.
"""

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable

import zmq

from gpufc import wire
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
"""Messages that the socket holds in each direction; what is over it waits in `_outbox`."""


class Channel:
    """Sends what it is given in that order, and a heartbeat every `HEARTBEAT_S`.

    `on_message` is called in the channel's thread with every message of this epoch and must not
    block. `heartbeat` is asked for the current record each time one is due.
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
        """Leave the link for another one, on which `first` is said first. In `on_message` only.

        Others may still hand messages of the old epoch over: the new front drops them.
        """
        self._endpoint, self._epoch = endpoint, epoch
        self._outbox = deque(wire.encode(message) for message in first)
        self._has_moved = True

    def send(self, message: FromWorker) -> None:
        """Hand a message over, from any thread. Order is kept for each calling thread."""
        self._outbox.append(wire.encode(message))
        os.eventfd_write(self._wakeup, 1)

    def run(self) -> None:
        """Serve the socket until the process ends. Raises `LinkError` on a broken message."""
        socket = self._connect()
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._wakeup, zmq.POLLIN)
        next_beat = time.monotonic()
        while True:
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
            if self._has_moved:
                self._has_moved = False
                poller.unregister(socket)
                socket.close(linger=0)
                socket = self._connect()

    def _connect(self) -> "zmq.Socket[bytes]":
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        socket.connect(self._endpoint)
        return socket

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
