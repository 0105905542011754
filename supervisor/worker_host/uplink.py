"""The host's end of one connection to a front: a DEALER on tcp with CURVE.

One object is one attempt: libzmq's own reconnection is off, because a connection that was cut has
lost messages, and the next one begins with a hello.

Nothing that a worker said is dropped, and nothing waits: when the front does not read, frames queue
here and `on_full` asks the user to stop reading its workers.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from enum import StrEnum

import zmq
from msgspec import Struct
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from gpufc.errors import LinkError
from supervisor.cluster import wire
from supervisor.cluster.keys import KeyPair
from supervisor.cluster.messages import HostMessage, ToHost
from supervisor.socket_reader import SocketReader

SEND_LIMIT = 10_000
"""Messages that libzmq queues before workers are paused."""

CONNECT_S = 5.0
LINGER_S = 1.0

_NOBLOCK = int(zmq.NOBLOCK)
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)


class Trouble(StrEnum):
    """The cause of a connection's end."""

    UNREACHABLE = "unreachable"
    NO_FRONT = "no_front"
    """Something listens that does not own the pinned key."""
    KEY_REFUSED = "key_refused"
    REFUSED = "refused"
    CUT = "cut"
    PROTOCOL = "protocol"


class Ended(Struct, frozen=True):
    """The end of an attempt."""

    trouble: Trouble
    detail: str


class Listeners(Struct, frozen=True):
    """The user's functions. `on_end` is called once at most, and nothing after it."""

    on_open: Callable[[], None]
    on_control: Callable[[ToHost], None]
    on_frame: Callable[[int, memoryview], None]
    on_end: Callable[[Ended], None]
    on_full: Callable[[bool], None]
    """True: stop reading workers. False: go on."""


class Uplink:
    """Open from construction until `close`. All methods belong to the event loop's thread."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        front_key: str,
        own: KeyPair,
        listeners: Listeners,
    ) -> None:
        """Begin to connect. Raises `zmq.ZMQError` for an address that is none."""
        self._listeners = listeners
        self._queue: deque[bytes] = deque()
        self._is_open = False
        self._has_ended = False
        self._is_closed = False
        self._socket = _dealer(context, front_key, own)
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)
            raise
        self._reader = SocketReader(self._socket, self._take, self._flush)
        self._events = SocketReader(self._monitor, self._take_event)

    def send(self, message: HostMessage) -> None:
        """Queue a control message. Raises `LinkError` if it is too large."""
        self.send_raw(wire.control(message))

    def send_raw(self, frame: bytes) -> None:
        """Queue a frame of `wire`. Never blocks."""
        if self._is_closed or self._has_ended:
            return
        if self._queue or not self._sent(frame):
            self._queue.append(frame)
            if len(self._queue) == 1:
                self._listeners.on_full(True)
        self._reader.look_soon()

    @property
    def is_full(self) -> bool:
        """Whether frames wait because the front does not read."""
        return bool(self._queue)

    def close(self, linger_s: float = 0.0) -> None:
        """Close the connection; what is queued has `linger_s` to leave. May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        self._reader.close()
        self._events.close()
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=int(linger_s * 1000))

    def _sent(self, frame: bytes) -> bool:
        try:
            self._socket.send(frame, _NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _flush(self) -> None:
        """The socket may take messages again."""
        if not self._queue:
            return
        while self._queue and self._sent(self._queue[0]):
            self._queue.popleft()
        if not self._queue:
            self._listeners.on_full(False)

    def _take(self) -> None:
        data = self._socket.recv(_NOBLOCK)
        if self._has_ended:
            return
        try:
            epoch, payload = wire.split(data)
            if epoch == wire.CONTROL:
                self._listeners.on_control(wire.decode_to_host(payload))
            else:
                self._listeners.on_frame(epoch, payload)
        except LinkError as err:
            self._end(Trouble.PROTOCOL, f"the front broke the protocol: {err}")

    def _take_event(self) -> None:
        event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
        match event["event"]:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._is_open = True
                self._listeners.on_open()
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._end(Trouble.KEY_REFUSED, "the front does not know this host's key")
            case zmq.EVENT_DISCONNECTED if self._is_open:
                self._reader.read_now()
                self._end(Trouble.CUT, "the connection was closed")
            case zmq.EVENT_CLOSED:
                self._end(Trouble.UNREACHABLE, "nothing answers there")
            case _:
                self._end(Trouble.NO_FRONT, "what answers there is not the front of the join file")

    def _end(self, trouble: Trouble, detail: str) -> None:
        if not self._has_ended and not self._is_closed:
            self._has_ended = True
            self._listeners.on_end(Ended(trouble, detail))


def _dealer(
    context: "zmq.Context[zmq.Socket[bytes]]", front_key: str, own: KeyPair
) -> "zmq.Socket[bytes]":
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, int(CONNECT_S * 1000))
    socket.setsockopt(zmq.HANDSHAKE_IVL, int(CONNECT_S * 1000))
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.SNDHWM, SEND_LIMIT)
    socket.setsockopt(zmq.RCVHWM, SEND_LIMIT)
    socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
    socket.setsockopt(zmq.CURVE_SERVERKEY, _z85(front_key))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, _z85(own.public))
    socket.setsockopt(zmq.CURVE_SECRETKEY, _z85(own.secret))
    with contextlib.suppress(zmq.ZMQError):  # a machine without IPv6
        socket.setsockopt(zmq.IPV6, 1)
    return socket


def _z85(key: str) -> bytes:
    return z85.encode(bytes.fromhex(key))
