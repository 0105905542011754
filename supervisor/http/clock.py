"""`GET /v1/time`: the front's clock."""

import time

from aiohttp import web

from supervisor.http.context import json_response


async def get_time(_request: web.Request) -> web.Response:
    """Unix time in seconds, as a fraction."""
    return json_response({"time": time.time()})
