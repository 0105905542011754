"""The socket between the front and a plugin's process."""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import msgspec

from gpufc.errors import LinkError
from gpufc.framing import frame, take_frames
from supervisor.plugins import messages as m

_PIECE = 1 << 16


class Link(asyncio.Protocol):
    """The front's end of the socket."""

    def __init__(self, heard: Callable[[m.FromPlugin], None]) -> None:
        """`heard` gets each message. What is none ends the link."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = heard
        self._buffer = bytearray()
        self._is_given_up = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame(data))

    def abort(self) -> None:
        self._is_given_up = True
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            for message in take_frames(self._buffer, m.MOST_BYTES):
                self._heard(m.decode(message))
        except (LinkError, msgspec.MsgspecError):
            self.abort()

    def read_rest(self, copy: socket.socket) -> None:
        """Hear what the process sent before it ended, from a copy of the socket. A write that meets
        the end closes the link over answers that it has not read yet."""
        copy.setblocking(False)
        while not self._is_given_up:
            try:
                data = copy.recv(_PIECE)
            except OSError:  # nothing is left
                return
            if not data:
                return
            self.data_received(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if not self.ended.done():
            self.ended.set_result(None)
