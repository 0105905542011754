"""`GET /metrics` and `/history` on the control socket, for a report."""

from typing import Protocol

import msgspec
from aiohttp import web

from supervisor.devices.history import Recent


class MeasuredFront(Protocol):
    """See `supervisor.app.Front`."""

    async def exposition(self) -> bytes:
        """All metrics as Prometheus' text."""
        ...

    def history(self) -> Recent:
        """The last hour of the machine."""
        ...


def add_figures(app: web.Application, front: MeasuredFront) -> None:
    """Add the routes to the control socket's application."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=await front.exposition(), content_type="text/plain")

    async def history(_request: web.Request) -> web.Response:
        return web.Response(
            body=msgspec.json.encode(front.history()), content_type="application/json"
        )

    app.router.add_get("/metrics", metrics)
    app.router.add_get("/history", history)
