"""One connection, and the server that makes and counts connections.

aiohttp bounds neither the time for a header nor the number of connections, closes half-closed
connections, and accepts some heads that HTTP forbids.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar, Protocol, TypeVar

from aiohttp import HttpVersion, web
from aiohttp.web_protocol import RequestHandler

from gpufc.config import LimitsConfig
from gpufc.errors import InternalError, InvalidRequest, RequestError
from gpufc.ids import new_request_id
from supervisor import descriptors
from supervisor.dispatch.request import Principal
from supervisor.http.edge import rules
from supervisor.http.edge.errors import error_response
from supervisor.http.edge.middleware import SERVER
from supervisor.http.edge.places import Held, Places

logger = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""A connection with a part of a header for this long may be closed to make room for another."""

PROBE_AFTER_S = 0.05
"""Time for an answer to the first probe. Later ones have four times as long, up to the next."""
PROBE_EVERY_S = 5.0
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TCP_CLOSE = 7

MAX_UNSENT_BYTES = 128 * 1024
"""Bytes of answers that the kernel takes before they can be sent."""
_INTERNET = {socket.AF_INET, socket.AF_INET6}


class Placed(Held, Protocol):
    """What has a place: a connection, or one that is not encrypted yet."""

    def force_close(self) -> None: ...


class BoundedHandler(RequestHandler):
    """One connection. `address` is its client's."""

    principal: ClassVar[Principal | None] = None
    """The principal of all its requests; None where each request says it for itself."""

    __slots__ = (
        "_entered_reserve",
        "_header_deadline",
        "_is_half_closed",
        "_keep_alive",
        "_precursor",
        "_probing",
        "_server",
        "_waits_since",
        "address",
    )

    def __init__(self, server: "BoundedServer", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self.address = ""
        self._header_deadline: asyncio.TimerHandle | None = None
        self._waits_since = self._loop.time()
        self._is_half_closed = False
        self._entered_reserve = False
        self._precursor: Placed | None = None
        self._keep_alive: Callable[[], Awaitable[None]] | None = None
        self._probing: asyncio.Task[None] | None = None  # the loop's own reference is weak

    def takes_place_of(self, precursor: Placed) -> None:
        """Its place is that of `precursor`, from the moment at which it is made."""
        self._precursor = precursor

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._precursor is not None:
            self._server.places.leave(self._precursor)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        entry = self._server.places.enter(self, PATIENCE_S, self._loop.time())
        if entry.victim is not None:
            entry.victim.force_close()
        self._entered_reserve = entry.in_reserve
        if not entry.admitted:
            self.force_close()
            transport.close()
            return
        self._bound_unsent(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.places.leave(self)
        self._stop_header_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._waits_for_header:
            self._stop_header_deadline()
            self._waits_since = self._loop.time()
        elif data and self._header_deadline is None:
            self._waits_since = self._loop.time()
            self._header_deadline = self._loop.call_later(
                self._server.limits.header_timeout_s, self.force_close
            )

    def keeps_alive_with(self, send: Callable[[], Awaitable[None]] | None) -> None:
        """While a stream is being sent, `send` is what keeps it alive: sent at once to a client
        that sends no more, it tells whether that client still reads."""
        self._keep_alive = send

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. It may still read, so requests that are whole are answered."""
        if self._waits_for_header or self._lacks_body or self._is_encrypted:
            return False  # TLS has no half-closed connections
        self._is_half_closed = True
        self._probe(PROBE_AFTER_S)
        return True

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
        return refusal(error, request)

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

    @property
    def waits_since(self) -> float | None:
        """Since when it has waited for a whole header (loop seconds); None while it is busy."""
        return self._waits_since if self._waits_for_header else None

    @property
    def is_idle(self) -> bool:
        """Whether it waits and has no part of a header."""
        return self._waits_for_header and self._header_deadline is None

    @property
    def is_last(self) -> bool:
        """Whether the client sends no further request after the one being answered."""
        return self._is_half_closed and not self._messages

    @property
    def is_in_reserve(self) -> bool:
        """Whether it is served short routes only, because there are too many connections."""
        return self._entered_reserve and self._server.places.is_crowded(self.address)

    @property
    def _waits_for_header(self) -> bool:
        if self._waiter is None:
            return self._request_count == 0  # aiohttp has not begun to wait yet
        return not self._waiter.done()

    @property
    def _is_encrypted(self) -> bool:
        transport = self.transport
        return transport is not None and transport.get_extra_info("sslcontext") is not None

    @property
    def _lacks_body(self) -> bool:
        """Whether a request that has begun waits for the rest of its body."""
        request = self._current_request
        return (request is not None and not request.content.is_eof()) or not all(
            payload.is_eof() for _, payload in self._messages
        )

    def _probe(self, after_s: float) -> None:
        """Find out whether a client that sends no more still reads.

        A closed and a half-closed connection look alike until something is sent: the one answers
        with a reset. A client passes over an interim answer, and over what keeps a stream alive.
        """
        if self.transport is None:
            return
        if self._waits_for_header or self._lacks_body or self._is_reset():
            self.abort()
            return
        request = self._current_request
        has_begun = request is not None and request.writer.output_size > 0
        if has_begun and self._keep_alive is None:
            return  # writing the answer will tell
        if has_begun and self._keep_alive is not None and not self.backlog:
            self._probing = self._loop.create_task(_sent(self._keep_alive))
        elif not has_begun and request is not None and request.version == HttpVersion(1, 1):
            self.transport.write(_PROBE)
        self._loop.call_later(after_s, self._probe, min(PROBE_EVERY_S, 4 * after_s))

    @staticmethod
    def _bound_unsent(transport: asyncio.BaseTransport) -> None:
        """Let the kernel keep few bytes for a client that does not read, so that the backlog shows
        it. By itself the kernel takes megabytes, which count as memory of the front's cgroup."""
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in _INTERNET:
            with suppress(OSError):  # it is closed already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)

    def _is_reset(self) -> bool:
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is None or sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
            return False
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE)

    def _stop_header_deadline(self) -> None:
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None


async def _sent(send: Callable[[], Awaitable[None]]) -> None:
    with suppress(ConnectionError, RuntimeError):  # it is gone, or the stream has just ended
        await send()


HandlerT = TypeVar("HandlerT", bound=BoundedHandler)


class BoundedServer(web.Server):
    """Makes a `BoundedHandler` for each connection. Refuses requests that break HTTP's rules."""

    def __init__(self, server: web.Server, limits: LimitsConfig) -> None:
        super().__init__(
            self._strictly,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **server._kwargs,
        )
        self.limits = limits
        # beyond it the descriptors for workers would run short
        allowed = descriptors.for_connections(descriptors.limit())
        self.handshakes: set[asyncio.Task[None]] = set()
        self.places: Places[Placed] = Places(
            limits.max_connections_per_address, min(limits.max_connections or allowed, allowed)
        )
        self._handle = server.request_handler

    def __call__(self) -> RequestHandler:
        return self.handler(BoundedHandler)

    def handler(self, kind: type[HandlerT]) -> HandlerT:
        """A handler of this kind for a new connection."""
        return kind(self, loop=self._loop, **self._kwargs)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's
        """As aiohttp's. Ends handshakes, too."""
        for handshake in tuple(self.handshakes):
            handshake.cancel()
        await super().shutdown(timeout)

    async def _strictly(self, request: web.BaseRequest) -> web.StreamResponse:
        error = rules.fault(request.version, request.headers)
        return await self._handle(request) if error is None else refusal(error, request)


def refusal(error: RequestError, request: web.BaseRequest) -> web.StreamResponse:
    """The answer to a request that does not reach the application. It closes the connection."""
    # aiohttp repeats the request's version in the status line, whatever it is
    request._version = HttpVersion(1, 1)
    request._cache.pop("version", None)
    request_id = new_request_id()
    response = error_response(error, request_id)
    response.headers["X-Request-Id"] = request_id
    response.headers["Server"] = SERVER
    response.force_close()
    return response
