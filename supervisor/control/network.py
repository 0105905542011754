"""`POST /network/connect` and `/network/disconnect` on the control socket.

Each answers with one line, `{"network": …}`: the state as in `/stats`, once it holds.
"""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from aiohttp import web

from gpufc.errors import NotFound
from supervisor.control.lines import Event, send_lines


class NetworkedFront(Protocol):
    """See `supervisor.app.Front`."""

    def status(self) -> dict[str, Any]: ...
    def connect_network(self) -> None: ...
    async def disconnect_network(self) -> None: ...


def add_network(app: web.Application, front: NetworkedFront) -> None:
    """Add the routes to the control socket's application."""

    def state() -> Event:
        return {"network": front.status()["network"]}

    def require_network() -> None:
        if front.status()["network"] is None:
            raise NotFound("no network is configured: server_addr is not set, or offline is set")

    async def connected() -> AsyncIterator[Event]:
        front.connect_network()
        yield state()

    async def disconnected() -> AsyncIterator[Event]:
        await front.disconnect_network()
        yield state()

    async def connect(request: web.Request) -> web.StreamResponse:
        require_network()
        return await send_lines(request, connected())

    async def disconnect(request: web.Request) -> web.StreamResponse:
        require_network()
        return await send_lines(request, disconnected())

    app.router.add_post("/network/connect", connect)
    app.router.add_post("/network/disconnect", disconnect)
