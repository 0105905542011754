"""One connection to the control port: frames in, frames out, and a full close."""

import asyncio
import contextlib
from typing import Self

from supervisor.fabric.codec import HEADER, ProtocolError, decode_frame, encode_frame, frame_size
from supervisor.fabric.messages import Command
from supervisor.fabric.trust import Trust

WRITE_S = 30.0
"""A server that takes nothing for this long is gone."""

CLOSE_S = 2.0
"""For TLS's goodbye; then the connection is cut."""

LONG_BYTES = 256 * 1024
"""A longer frame may take long to decode, and is decoded beside the event loop."""

LOST = (OSError, EOFError, TimeoutError, ProtocolError)
"""What ends a connection: the network, the server, or bytes that are no message."""


class Link:
    """One reader calls `receive`; any task may call `send`. After an error only `close` is left."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, trust: Trust, port: int) -> Self:
        """Connect. Raises one of `LOST`. Nothing is sent to a server that is not trusted."""
        tls = trust.control
        reader, writer = await asyncio.open_connection(
            trust.address, port, ssl=tls, server_hostname=trust.name if tls else None
        )
        link = cls(reader, writer)
        try:
            if tls is not None:
                trust.check(writer.get_extra_info("ssl_object"))
        except BaseException:
            await link.close()
            raise
        return link

    async def receive(self) -> Command:
        """The next message. Raises one of `LOST`."""
        n_bytes = frame_size(await self._reader.readexactly(HEADER.size))
        payload = await self._reader.readexactly(n_bytes)
        if n_bytes > LONG_BYTES:
            return await asyncio.to_thread(decode_frame, payload)
        return decode_frame(payload)

    async def send(self, message: Command) -> None:
        """Write a message, after those before it. Raises one of `LOST`.

        A server that reads slowly holds the caller up, and after `WRITE_S` the connection ends. A
        call that is cancelled leaves a whole message or none.
        """
        frame = encode_frame(message)
        async with self._lock:
            try:
                async with asyncio.timeout(WRITE_S):
                    self._writer.write(frame)
                    await self._writer.drain()
            except LOST:
                self._writer.transport.abort()  # the reader learns it at once
                raise

    async def close(self) -> None:
        """Close the socket for good. Returns when it is closed."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        except LOST:
            self._writer.transport.abort()
            with contextlib.suppress(*LOST):
                await self._writer.wait_closed()
