"""`GET /livez`, `/readyz` and `/health`: whether the front runs, and whether it could serve."""

import math

from aiohttp import web

from supervisor.fleet.port import ConditionStatus
from supervisor.http.edge.context import json_response, services


async def livez(_request: web.Request) -> web.Response:
    """200, always: the front runs."""
    return json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """200 if a token could be produced now, else 503 with the reason."""
    condition = services(request).dispatcher.condition()
    if condition.status is ConditionStatus.OK:
        return json_response({"status": "ok"})
    return json_response(
        {"status": condition.status, "detail": condition.detail},
        status=503,
        headers={"Retry-After": str(max(1, math.ceil(condition.retry_after_s)))},
    )
