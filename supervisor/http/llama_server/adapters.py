"""`GET /lora-adapters`: the adapters that requests may choose."""

from aiohttp import web
from msgspec import Struct

from supervisor.http.edge.context import json_response, services


class LoraAdapter(Struct, frozen=True):
    """An adapter by its number in a request's `lora`. No adapter is applied unless chosen, so
    `scale`, llama-server's scale for all requests, is 0."""

    id: int
    name: str
    scale: float = 0.0


async def list_adapters(request: web.Request) -> web.Response:
    """The LoRA adapters of the default model."""
    fleet = services(request).fleet
    names = fleet.adapters(fleet.resolve(None))
    return json_response([LoraAdapter(at, name) for at, name in enumerate(names)])
