"""Reads ZeroMQ sockets in the event loop.

A socket's descriptor is edge-triggered (zmq_getsockopt(3)): it announces a message only after the
socket was empty, and a send may swallow the announcement. So a reader takes messages until there is
none, and looks again after each send.
"""

import asyncio
import itertools
from collections.abc import Callable

import zmq

MESSAGES_PER_TURN = 256
"""Messages of one socket that are taken before the loop serves other tasks."""

# plain numbers: an operation on pyzmq's flags costs more than one on the socket
_POLLIN, _POLLOUT = map(int, (zmq.POLLIN, zmq.POLLOUT))


class SocketReader:
    """Calls `take` for each message of a socket, in the loop's thread, until `close`.

    `take` receives one whole message without waiting. It may call any method. The caller owns the
    socket and closes it after the reader.
    """

    def __init__(
        self,
        socket: "zmq.Socket[bytes]",
        take: Callable[[], None],
        woken: Callable[[], None] | None = None,
    ) -> None:
        """`woken` is called before each look at the socket, for users that wait to send."""
        self._events = socket.getsockopt
        self._take = take
        self._woken = woken
        self._loop = asyncio.get_running_loop()
        self._is_scheduled = False
        self._is_paused = False
        self._is_closed = False
        self._fd = int(socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._look)
        self.look_soon()

    def can_send(self) -> bool:
        """Whether a send would not have to wait."""
        return bool(int(self._events(zmq.EVENTS)) & _POLLOUT)

    def look_soon(self) -> None:
        """Look for messages in the next turn. To be called after a send."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._look)

    def read_now(self, most: int | None = None) -> None:
        """Take all messages that have arrived, even while paused. `most` is for a socket with
        peers that go on sending: it might never be empty."""
        for _ in itertools.count() if most is None else range(most):
            if self._is_closed or not self._take_one():
                return

    def pause(self) -> None:
        """Leave messages in the socket until `resume`: its peers feel the back-pressure."""
        self._is_paused = True

    def resume(self) -> None:
        """Undo `pause`."""
        self._is_paused = False
        self.look_soon()

    def close(self) -> None:
        """Take nothing more. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._fd)

    def _look(self) -> None:
        self._is_scheduled = False
        if self._woken is not None and not self._is_closed:
            self._woken()
        for _ in range(MESSAGES_PER_TURN):
            if self._is_closed or self._is_paused or not self._take_one():
                return
        self.look_soon()

    def _take_one(self) -> bool:
        # a question costs a third of an exception, and each wake-up ends with an empty socket
        if not int(self._events(zmq.EVENTS)) & _POLLIN:
            return False
        self._take()
        return True
