"""Routes that Claude Code calls beside Messages. They answer, so that it has nothing to report."""

from typing import Any

from aiohttp import web
from msgspec import Struct

from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import json_response


class Telemetry(Struct, frozen=True):
    """Events of any form."""

    events: Any = None


async def hello(_request: web.Request) -> web.Response:
    """Tells Claude Code that the server can be reached."""
    return json_response({})


async def drop_events(request: web.Request) -> web.Response:
    """Reads Claude Code's telemetry and forgets it."""
    await read_json(request, Telemetry)
    return json_response({})
