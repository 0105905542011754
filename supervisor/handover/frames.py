"""Sends whole messages over a connected socket, each after its length.

Unlike ZeroMQ's sockets it has no name that another process could bind, and its end of file shows at
once that the other front has ended.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import cast

from gpufc.errors import LinkError
from gpufc.framing import frame, take_frames
from gpufc.protocol import MAX_MESSAGE_BYTES

logger = logging.getLogger(__name__)


class Frames(asyncio.Protocol):
    """One end, in the event loop. `on_frame` gets every message; `on_lost` is called once.

    If `on_frame` raises `LinkError`, the connection is aborted.
    """

    def __init__(self, on_frame: Callable[[bytes], None], on_lost: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    @classmethod
    async def over(
        cls, sock: socket.socket, on_frame: Callable[[bytes], None], on_lost: Callable[[], None]
    ) -> "Frames":
        """Take a connected socket over."""
        loop = asyncio.get_running_loop()
        _, self = await loop.create_unix_connection(lambda: cls(on_frame, on_lost), sock=sock)
        return self

    def write(self, data: bytes) -> None:
        """Queue one message. Drops it after the end. Never blocks."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(data))

    def close(self) -> None:
        """Send the queued messages, then end. `on_lost` is called."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            asyncio.Transport, transport
        )  # uvloop's transports do not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            for message in take_frames(self._buffer, MAX_MESSAGE_BYTES):
                self._on_frame(message)
        except LinkError:
            logger.exception("broken frame")
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost()
