"""Accepting encrypted connections. Each has a place from its first packet, so that clients which
never end their handshake take no more places than others."""

import asyncio
import errno
import logging
import socket

from supervisor.http.edge.connection import PATIENCE_S, BoundedHandler, BoundedServer
from supervisor.http.edge.tls import Certificate

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Pause after the system has refused to accept a connection, as asyncio has it."""

_SHORT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Handshake:
    """A connection that is not encrypted yet, as far as its place is concerned."""

    is_idle = True

    def __init__(self, address: str, since: float) -> None:
        self.address = address
        self.waits_since: float | None = since
        self._task: asyncio.Task[None] | None = None

    def begin(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def force_close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()


class TlsListener:
    """Accepts from `sock`, which it owns, until `close`. Handshakes under way go on after that, and
    the server's shutdown ends them."""

    def __init__(
        self, sock: socket.socket, server: BoundedServer, tls: Certificate, shutdown_s: float
    ) -> None:
        self._sock = sock
        self._server = server
        self._tls = tls
        self._shutdown_s = shutdown_s
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Accept no more. Queued connections stay queued for other owners of the socket."""
        self._accepting.cancel()
        self._loop.remove_reader(self._sock)  # at once: its number may be another's soon
        self._sock.close()

    async def _accept(self) -> None:
        while True:
            try:
                client, peer = await self._loop.sock_accept(self._sock)
            except OSError as err:
                if err.errno in _SHORT_OF:
                    logger.warning("connection_not_accepted: %s", err)
                await asyncio.sleep(PAUSE_S if err.errno in _SHORT_OF else 0)
                continue
            self._admit(client, str(peer[0]))
            await asyncio.sleep(0)  # accepting from a full queue does not give way by itself

    def _admit(self, client: socket.socket, address: str) -> None:
        now, places = self._loop.time(), self._server.places
        handshake = Handshake(address, now)
        entry = places.enter(handshake, PATIENCE_S, now)
        if entry.victim is not None:
            entry.victim.force_close()
        if not entry.admitted:
            client.close()
            return
        task = self._loop.create_task(self._shake_hands(handshake, client))
        handshake.begin(task)
        self._server.handshakes.add(task)
        task.add_done_callback(self._server.handshakes.discard)

    async def _shake_hands(self, handshake: Handshake, client: socket.socket) -> None:
        def handler() -> BoundedHandler:
            made = self._server.handler(BoundedHandler)
            made.takes_place_of(handshake)
            return made

        try:
            await self._loop.connect_accepted_socket(
                handler,
                client,
                ssl=self._tls.context,
                ssl_handshake_timeout=self._server.limits.header_timeout_s,
                ssl_shutdown_timeout=self._shutdown_s,
            )
        except OSError as err:  # TLS errors and time limits among them
            logger.debug("handshake_failed: %s", err)
        finally:
            self._server.places.leave(handshake)
