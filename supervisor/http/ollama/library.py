"""Ollama's routes that change the set of models. Here only the operator of the service does that.

`pull` of a served model succeeds at once: clients pull a model before they use it.
"""

import msgspec
from aiohttp import web
from msgspec import Struct

from gpufc.errors import ModelNotFound, NotSupported
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import json_response, services
from supervisor.http.ollama.lines import NEWLINE_DELIMITED
from supervisor.http.ollama.names import served

REMEDY = "start the service with --model-path FILE, or use gpufc-supervisor swap FILE"

PULLED = ("already present", "success")
"""The states of a pull. Clients wait for the last one."""


class PullBody(Struct, frozen=True):
    """`name` is the older name of `model`."""

    model: str | None = None
    name: str | None = None
    stream: bool | None = None


class Pulled(Struct):
    """Where a pull is."""

    status: str


async def pull(request: web.Request) -> web.Response:
    """Say that a served model is there."""
    body = await read_json(request, PullBody)
    try:
        served(services(request), body.model or body.name)
    except ModelNotFound as err:
        raise ModelNotFound(f"{err.message}, and none is downloaded: {REMEDY}") from err
    if body.stream is False:
        return json_response(Pulled(PULLED[-1]))
    lines = b"".join(msgspec.json.encode(Pulled(state)) + b"\n" for state in PULLED)
    return web.Response(body=lines, content_type=NEWLINE_DELIMITED)


async def refuse_change(request: web.Request) -> web.Response:
    """Refuse a change of the served models."""
    verb = request.path.rstrip("/").rpartition("/")[2]
    raise NotSupported(f"This service cannot {verb} models: {REMEDY}")
