"""The TCP connections of a listening socket, by descriptor, from the socket's monitor.

libzmq accepts without a limit, and keeps a peer that says nothing. So this module counts what it
accepts. A connection is pending until the caller has its hello. Beyond `most_pending` the oldest
pending one is cut: a real handshake takes milliseconds, so a flood of silent connections does not
keep a host out. A pending connection is cut after `pending_s`.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable

import zmq
from zmq.utils.monitor import parse_monitor_message

from supervisor.socket_reader import SocketReader

MOST_PENDING = 64
PENDING_S = 5.0

EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED


class Connections:
    """Follows the connections of `listener`, which is bound after this. Event loop's thread."""

    def __init__(
        self,
        listener: "zmq.Socket[bytes]",
        on_closed: Callable[[int], None],
        *,
        most_pending: int = MOST_PENDING,
        pending_s: float = PENDING_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_closed` gets the descriptor of each connection that was held."""
        self.n_accepted = 0
        self.n_cut = 0
        self._listener = listener
        self._on_closed = on_closed
        self._most_pending = most_pending
        self._pending_s = pending_s
        self._clock = clock
        self._pending: dict[int, float] = {}  # in the order of acceptance
        self._held: set[int] = set()
        self._monitor = listener.get_monitor_socket(EVENTS)
        self._reader = SocketReader(self._monitor, self._take)

    @property
    def n_pending(self) -> int:
        return len(self._pending)

    def hold(self, fd: int) -> None:
        """Its peer has said hello: report its end."""
        self._pending.pop(fd, None)
        self._held.add(fd)

    def cut(self, fd: int) -> None:
        """Close a connection. Safe for a descriptor that libzmq has closed already."""
        self._pending.pop(fd, None)
        self._held.discard(fd)
        self._shut(fd)

    def turn_away(self, fd: int) -> None:
        """Close a connection that is not held. A late message of a lost host has its descriptor,
        whose number may be another host's by now."""
        if fd not in self._held:
            self.cut(fd)

    def cut_overdue(self) -> None:
        """Close connections that have been pending for too long."""
        last = self._clock() - self._pending_s
        for fd in [fd for fd, since in self._pending.items() if since < last]:
            self._cut_pending(fd)

    def close(self) -> None:
        """Before the listener is closed."""
        self._reader.close()
        self._listener.disable_monitor()
        self._monitor.close(linger=0)

    def _take(self) -> None:
        event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
        fd = event["value"]
        if event["event"] == zmq.EVENT_ACCEPTED:
            self.n_accepted += 1
            self._held.discard(fd)
            self._pending[fd] = self._clock()
            if len(self._pending) > self._most_pending:
                self._cut_pending(next(iter(self._pending)))
        elif event["event"] == zmq.EVENT_DISCONNECTED:
            self._pending.pop(fd, None)
            if fd in self._held:
                self._held.discard(fd)
                self._on_closed(fd)

    def _cut_pending(self, fd: int) -> None:
        self.n_cut += 1
        del self._pending[fd]
        self._shut(fd)

    def _shut(self, fd: int) -> None:
        """Shut a connection of this listener down. Its descriptor's number may be another file's
        by now, so a copy is checked first: only a connection to our own port is touched."""
        with contextlib.suppress(OSError):
            copy = os.dup(fd)
            try:
                connection = socket.socket(fileno=copy)
            except OSError:
                os.close(copy)
                raise
            with connection:
                if connection.getsockname()[1] == self._port():
                    connection.shutdown(socket.SHUT_RDWR)

    def _port(self) -> int:
        return int(self._listener.get_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
