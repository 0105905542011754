"""Where the chunks of a session's tasks go: to its connection, or to one without a login.

The server takes chunks from any connection. So tasks may outlive their session: when another front
of this machine logs in, the control connection has to be closed first.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from supervisor.fabric.link import Link
from supervisor.fabric.messages import InferenceResultChunk
from supervisor.fabric.trust import Trust

CONNECT_S = 20.0


class Route:
    """The way of chunks. Invariant: a chunk is sent after those before it, on one connection."""

    def __init__(self, trust: Trust, port: int, link: Link) -> None:
        """`link` is the session's connection, which the session closes."""
        self._trust = trust
        self._port = port
        self._link: Link | None = link
        self._is_own = False
        self._lock = asyncio.Lock()

    async def send(self, chunk: InferenceResultChunk) -> None:
        """Send a chunk. Raises one of `link.LOST`."""
        async with self._lock:
            if self._link is None:
                async with asyncio.timeout(CONNECT_S):
                    self._link = await Link.open(self._trust, self._port)
                self._is_own = True
            await self._link.send(chunk)

    @contextlib.asynccontextmanager
    async def leaving(self) -> AsyncIterator[None]:
        """Hold chunks back meanwhile. Those afterwards go over a connection without a login."""
        async with self._lock:
            yield
            self._link = None

    async def close(self) -> None:
        """Close the connection that this object has opened, if it has."""
        if self._link is not None and self._is_own:
            await self._link.close()
