"""Connections of the network's users, served by the front's own HTTP application.

The server asks for one (`RequestNewProxyConn`) and parks its user. We connect to the proxy port,
always by TLS, send `NewProxyConn`, and serve the bytes that follow. The server has checked its
user: the `Authorization` header is the platform's token, which is neither checked nor logged here.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TypeVar

from supervisor.dispatch.request import Principal
from supervisor.fabric.codec import encode_frame
from supervisor.fabric.link import LOST
from supervisor.fabric.messages import NewProxyConn
from supervisor.fabric.trust import Trust
from supervisor.http.edge.connection import BoundedHandler
from supervisor.http.edge.server import FrontRunner

logger = logging.getLogger(__name__)

CONNECT_S = 20.0
HEADER_S = 10.0
"""For the header of a request that is refused."""

LINGER_S = 0.5
END_OF_HEADER = b"\r\n\r\n"

MOST_REFUSALS = 64
"""Refusals at once; beyond it the server's user waits until it gives up."""

T = TypeVar("T")


class ProxiedHandler(BoundedHandler):
    """A connection that the server has joined to its user's. It has no half: the server ends both
    directions with the first one."""

    __slots__ = ()

    def eof_received(self) -> bool:  # type: ignore[override]
        return False


def handler_of(principal: Principal) -> type[ProxiedHandler]:
    """The connections whose requests are all a principal's."""
    return type("ProxiedHandler", (ProxiedHandler,), {"principal": principal, "__slots__": ()})


class Refusal(asyncio.Protocol):
    """Answers the first request with 502 and closes."""

    def __init__(self, reason: str) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        body = json.dumps(
            {"error": {"message": reason, "type": "overloaded_error", "code": "bad_gateway"}}
        ).encode()
        self._answer = (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self._tail = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            asyncio.get_running_loop().call_later(HEADER_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        read = self._tail + data
        self._tail = read[1 - len(END_OF_HEADER) :]
        if END_OF_HEADER in read and self._transport is not None:
            self._transport.write(self._answer)
            # a close before the body has come could reach the user as a reset, before the answer
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)
            self._transport = None

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if not self.ended.done():
            self.ended.set_result(None)


class Proxies:
    """Invariant: at most `most` connections are served, and `MOST_REFUSALS` are being refused."""

    def __init__(
        self,
        trust: Trust,
        port: int,
        http: FrontRunner,
        principal: Principal,
        *,
        most: int,
        is_draining: Callable[[], bool],
    ) -> None:
        self._trust = trust
        self._port = port
        self._http = http
        self._handler = handler_of(principal)
        self._most = most
        self._is_draining = is_draining
        self._opening: set[asyncio.Task[bool]] = set()
        self._refusing: set[asyncio.Task[None]] = set()

    @property
    def n_served(self) -> int:
        """Connections that are served now."""
        return sum(isinstance(one, ProxiedHandler) for one in self._http.connections())

    def open(self, proxy_conn_id: bytes) -> None:
        """Serve one connection of a user. Returns at once."""
        if self._is_draining():
            self._refuse(proxy_conn_id, "The server is stopping")
        elif self.n_served + len(self._opening) >= self._most:
            self._refuse(proxy_conn_id, "There are too many connections")
        else:
            serving = self._connect(proxy_conn_id, lambda: self._http.handler(self._handler))
            _keep(asyncio.create_task(serving), self._opening)

    async def close(self) -> None:
        """End the opening of connections. Those that are served go on with the front's own."""
        works = (*self._opening, *self._refusing)
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)

    def _refuse(self, proxy_conn_id: bytes, reason: str) -> None:
        if len(self._refusing) < MOST_REFUSALS:
            refusing = self._send_refusal(proxy_conn_id, Refusal(reason))
            _keep(asyncio.create_task(refusing), self._refusing)

    async def _send_refusal(self, proxy_conn_id: bytes, refusal: Refusal) -> None:
        if await self._connect(proxy_conn_id, lambda: refusal):
            await refusal.ended

    async def _connect(
        self, proxy_conn_id: bytes, protocol: Callable[[], asyncio.Protocol]
    ) -> bool:
        """Whether the server has the connection now."""
        trust = self._trust
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    protocol,
                    trust.address,
                    self._port,
                    ssl=trust.proxy,
                    server_hostname=trust.name,
                )
            try:
                trust.check(transport.get_extra_info("ssl_object"))
            except LOST:
                transport.abort()
                raise
            transport.write(encode_frame(NewProxyConn(proxy_conn_id)))
        except LOST as err:
            logger.warning("network_connection_failed error=%s", err or type(err).__name__)
            return False
        return True


def _keep(task: asyncio.Task[T], tasks: set[asyncio.Task[T]]) -> None:
    """Hold a task until it has ended: the event loop does not."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)
