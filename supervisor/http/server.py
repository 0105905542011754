"""The server under the application: it accepts connections, bounds their number, and cuts them off.

aiohttp bounds neither the time for a header nor the number of connections of an address.
"""

import asyncio
import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gpufc.config import LimitsConfig
from gpufc.errors import InternalError, InvalidRequest, RequestError, StartError
from gpufc.ids import new_request_id
from supervisor import descriptors
from supervisor.addresses import listening, lookup
from supervisor.http.errors import error_response
from supervisor.systemd import activated_sockets

logger = logging.getLogger(__name__)

BACKLOG = 1024
LINGER_S = 2.0
"""How long the rest of a refused body is read and dropped, so that the client sees the answer."""


class BoundedHandler(RequestHandler):
    """One connection. It is closed if its header takes too long or its address has too many."""

    __slots__ = ("_address", "_header_deadline", "_server")

    def __init__(self, server: "BoundedServer", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._address: str | None = None
        self._header_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._server.admit(address):
            self.force_close()
            transport.close()
            return
        self._address = address
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._address is not None:
            self._server.leave(self._address)
            self._address = None
        self._stop_header_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # `_waiter` is pending exactly while the connection waits for a whole header
        if self._waiter is None or self._waiter.done():
            self._stop_header_deadline()
        elif data and self._header_deadline is None:
            self._header_deadline = self._loop.call_later(
                self._server.limits.header_timeout_s, self.force_close
            )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not valid HTTP, which never reaches the application."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        error: RequestError = InvalidRequest("The request is not valid HTTP")
        if status >= 500:
            logger.error("connection_failed", exc_info=exc)
            error = InternalError("Something went wrong on our side")
        response = error_response(error)
        response.headers["X-Request-Id"] = new_request_id()
        response.force_close()
        return response

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self._current_request is not None

    @property
    def backlog(self) -> int:
        """Bytes of answers that its client has yet to take, apart from the kernel's buffers."""
        transport = self.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close it at once. What its client has yet to take is dropped."""
        if self.transport is not None:
            self.transport.abort()

    def _stop_header_deadline(self) -> None:
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None


class BoundedServer(web.Server):
    """Makes a `BoundedHandler` for each connection. Counts connections by address."""

    def __init__(self, server: web.Server, limits: LimitsConfig) -> None:
        super().__init__(
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **server._kwargs,
        )
        self.limits = limits
        allowed = descriptors.for_connections(descriptors.limit())
        self.max_connections = min(limits.max_connections or allowed, allowed)
        """Beyond it the descriptors for workers would run short."""
        self._by_address: Counter[str] = Counter()
        self._n_connections = 0

    def __call__(self) -> RequestHandler:
        return BoundedHandler(self, loop=self._loop, **self._kwargs)

    def admit(self, address: str) -> bool:
        """Count a connection in. False, without counting it, if its address has too many, or if
        there are too many in all."""
        if self._n_connections >= self.max_connections:
            return False
        if self._by_address[address] >= self.limits.max_connections_per_address:
            return False
        self._by_address[address] += 1
        self._n_connections += 1
        return True

    def leave(self, address: str) -> None:
        """Count a connection out."""
        self._n_connections -= 1
        self._by_address[address] -= 1
        if self._by_address[address] <= 0:
            del self._by_address[address]


class FrontRunner(web.AppRunner):
    """An application runner with our limits. A retired runner accepts no connections, and closes
    each of its own after the next answer."""

    def __init__(self, app: web.Application, limits: LimitsConfig) -> None:
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
        self._has_retired = False
        app.on_response_prepare.append(self._close_when_retired)

    async def _make_server(self) -> web.Server:
        return BoundedServer(await super()._make_server(), self._limits)

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on these sockets. The runner owns them from now on."""
        for sock in sockets:
            await web.SockSite(self, sock, backlog=BACKLOG).start()

    async def retire(self) -> None:
        """Stop accepting connections: another front, with the same sockets, accepts from now on.

        An idle connection stays open for its usual time. Closing it could lose a request that its
        client is sending, and not every client retries.
        """
        self._has_retired = True
        for site in tuple(self.sites):
            await site.stop()  # closes our descriptor only; queued connections stay queued

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

    async def _close_when_retired(
        self, _request: web.BaseRequest, response: web.StreamResponse
    ) -> None:
        if self._has_retired:
            response.force_close()
            response.headers["Connection"] = "close"  # aiohttp has already set its own


def listeners(host: str, port: int) -> list[socket.socket]:
    """The sockets to accept connections on: those of the service manager, else those of `bind`.

    Raises `StartError`.
    """
    given = activated_sockets(os.environ)
    if given:
        logger.info("socket_activated n=%d", len(given))
    return given or bind(host, port)


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


def urls(sockets: Sequence[socket.socket]) -> list[str]:
    """The URLs of the sockets."""
    return [_url(*sock.getsockname()) for sock in sockets]


def _url(host: str, port: int, _flow: int = 0, scope: int = 0) -> str:
    # the scope of a link-local address follows an escaped percent sign (RFC 6874)
    zone = f"%25{socket.if_indextoname(scope)}" if scope else ""
    return f"http://[{host}{zone}]:{port}" if ":" in host else f"http://{host}:{port}"
