"""The runner under the application: its sockets, and its connections' end."""

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import NoReturn, TypeVar

from aiohttp import web

from gpufc.config import AccessConfig, LimitsConfig
from gpufc.errors import ConfigError, StartError
from supervisor.access import exposure
from supervisor.addresses import listening, lookup
from supervisor.http.edge.connection import BoundedHandler, BoundedServer
from supervisor.http.edge.handshakes import TlsListener
from supervisor.http.edge.stalls import Stalls
from supervisor.http.edge.tls import Certificate
from supervisor.looks import repeat
from supervisor.systemd import activated_sockets

logger = logging.getLogger(__name__)

BACKLOG = 1024
PRESSED_S = 2.0
"""How long a client may take nothing while answers hold too much memory, if its own answer is
among the largest."""

LOOK_S = 1.0
"""Time between two looks at what clients have yet to take."""

LINGER_S = 2.0
"""How long the rest of a refused body is read and dropped, so that the client sees the answer."""


class UnguardedAddress(StartError, ConfigError):
    """Known at the start only, and a fault of the configuration: hence that exit code."""


RETIRED = web.AppKey("retired", asyncio.Event)
"""Set once another front accepts the connections: a stream that never ends has to end then."""

HandlerT = TypeVar("HandlerT", bound=BoundedHandler)


class FrontRunner(web.AppRunner):
    """An application runner with our limits. A retired runner accepts no connections, and closes
    each of its own after the next answer."""

    def __init__(
        self, app: web.Application, limits: LimitsConfig, tls: Certificate | None = None
    ) -> None:
        """With `tls`, connections are encrypted by it."""
        super().__init__(
            app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=limits.keepalive_timeout_s,
            auto_decompress=False,
            lingering_time=LINGER_S,
            shutdown_timeout=LINGER_S,
        )
        self._limits = limits
        self._tls = tls
        self._retired = app[RETIRED] = asyncio.Event()
        app.on_response_prepare.append(self._close_after_last)

    async def _make_server(self) -> web.Server:
        return BoundedServer(await super()._make_server(), self._limits)

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on these sockets. The runner owns them from now on."""
        for sock in sockets:
            await BoundedSite(self, sock, self._tls).start()

    def handler(self, kind: type[HandlerT]) -> HandlerT:
        """The protocol for a connection that did not come from a listening socket. It is counted
        and ended with the others."""
        if not isinstance(self.server, BoundedServer):
            raise RuntimeError("the runner is not set up")
        return self.server.handler(kind)

    async def retire(self) -> None:
        """Stop accepting connections: another front, with the same sockets, accepts from now on.

        An idle connection stays open for its usual time. Closing it could lose a request that its
        client is sending, and not every client retries.
        """
        self._retired.set()
        for site in tuple(self.sites):
            await site.stop()  # closes our descriptor only; queued connections stay queued

    async def cut_off_stalled(self) -> NoReturn:
        """Close each connection whose client takes nothing of its answer for `write_timeout_s`, for
        ever. Its request is cancelled, as when the client leaves.

        Patience is shorter while all answers together hold more memory than bodies may. It ends
        for the largest ones then, until the others hold no more than that."""
        stalls = Stalls[BoundedHandler](self._limits.write_timeout_s)

        async def look() -> None:
            self.cut_off(stalls, self._limits.max_bodies_bytes)

        await repeat("stalled clients", look, LOOK_S)

    def cut_off(self, stalls: Stalls[BoundedHandler], limit_bytes: int | None = None) -> None:
        """Look at all connections once, and close the stalled ones; with a limit of bytes that all
        clients together have yet to take, those as well that are above it."""
        backlogs = {each: each.backlog for each in self.connections()}
        now = time.monotonic()
        given_up = dict.fromkeys(stalls.look(backlogs, now))
        if limit_bytes is not None:
            left = sum(n for each, n in backlogs.items() if each not in given_up)
            given_up |= dict.fromkeys(stalls.to_relieve(left - limit_bytes, PRESSED_S, now))
        for stalled in given_up:
            logger.warning("stalled_client_cut_off bytes=%d", stalled.backlog)
            stalled.abort()

    @property
    def n_connections(self) -> int:
        """Open connections, busy or idle."""
        return len(self.connections())

    @property
    def n_busy(self) -> int:
        """Connections on which a request is being answered."""
        return sum(handler.is_busy for handler in self.connections())

    def connections(self) -> list[BoundedHandler]:
        """The open connections."""
        found = self.server.connections if self.server is not None else []
        return [handler for handler in found if isinstance(handler, BoundedHandler)]

    async def _close_after_last(
        self, request: web.BaseRequest, response: web.StreamResponse
    ) -> None:
        connection = request.protocol
        is_last = isinstance(connection, BoundedHandler) and connection.is_last
        if self._retired.is_set() or is_last:
            response.force_close()
            response.headers["Connection"] = "close"  # aiohttp has already set its own


class BoundedSite(web.SockSite):
    """A listening socket. Over TLS, a handshake has as much time as a header, and a client that
    does not answer the end of a connection delays it no longer than without TLS."""

    __slots__ = ("_tls",)

    def __init__(self, runner: web.AppRunner, sock: socket.socket, tls: Certificate | None) -> None:
        context = None if tls is None else tls.context
        super().__init__(runner, sock, ssl_context=context, backlog=BACKLOG)
        self._tls = tls

    async def start(self) -> None:
        if self._tls is None:
            await super().start()
            return
        await super(web.SockSite, self).start()
        server = self._runner.server
        if not isinstance(server, BoundedServer):
            raise RuntimeError("the runner has not been set up")
        listener = TlsListener(self._sock, server, self._tls, LINGER_S)
        self._server = listener  # type: ignore[assignment]  # it is only closed


def listeners(host: str, port: int) -> list[socket.socket]:
    """The sockets to accept connections on: those of the service manager, else those of `bind`.

    Raises `StartError`.
    """
    given = activated_sockets(os.environ)
    if given:
        logger.info("socket_activated n=%d", len(given))
    return given or bind(host, port)


def require_guarded(sockets: Sequence[socket.socket], access: AccessConfig) -> None:
    """Raises `UnguardedAddress` for a socket that other machines can reach, without keys or TLS.

    A service manager's sockets come without a check of the configured host.
    """
    for sock in sockets:
        host = str(sock.getsockname()[0])
        refusal = exposure.refusal(f"the socket on {host}", access)
        if not exposure.is_loopback(host) and refusal:
            raise UnguardedAddress(refusal)


def bind(host: str, port: int) -> list[socket.socket]:
    """Take the port on every address of `host` that this machine has.

    Clients may connect from now on. Raises `StartError` with a remedy. Blocks while a host name is
    looked up.
    """
    try:
        return listening(lookup(host, port), BACKLOG)
    except OSError as err:
        raise StartError(_why(err, host, port)) from err


def _why(err: OSError, host: str, port: int) -> str:
    if err.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is taken; choose another one with --port (0 takes a free one)"
        )
    if err.errno == errno.EACCES:
        return f"port {port} needs privileges; choose one above 1023 with --port"
    return f"cannot listen on {host} port {port}: {err.strerror or err}"


def urls(sockets: Sequence[socket.socket], *, tls: bool = False) -> list[str]:
    """The URLs of the sockets."""
    scheme = "https" if tls else "http"
    return [f"{scheme}://{_authority(*sock.getsockname())}" for sock in sockets]


def _authority(host: str, port: int, _flow: int = 0, scope: int = 0) -> str:
    # the scope of a link-local address follows an escaped percent sign (RFC 6874)
    zone = f"%25{socket.if_indextoname(scope)}" if scope else ""
    return f"[{host}{zone}]:{port}" if ":" in host else f"{host}:{port}"
