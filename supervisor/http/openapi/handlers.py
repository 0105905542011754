"""`GET /openapi.json` and `/docs`."""

import asyncio
from collections.abc import Callable

from aiohttp import web
from msgspec import Struct

from supervisor.http.edge.context import json_response
from supervisor.http.openapi.document import Json
from supervisor.http.openapi.page import page

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Description(Struct, frozen=True):
    """The API's description in both forms."""

    document: Json
    page: str

    @classmethod
    def of(cls, document: Json) -> "Description":
        return cls(document, page(document))


DESCRIPTION: web.AppKey[Callable[[], Description]] = web.AppKey("description")
"""Makes the description at its first call, which takes longer than the event loop may wait."""


async def get_document(request: web.Request) -> web.Response:
    """This description, as an OpenAPI document."""
    description = await asyncio.to_thread(request.app[DESCRIPTION])
    return json_response(description.document)


async def get_page(request: web.Request) -> web.Response:
    """This description, as a page for people."""
    description = await asyncio.to_thread(request.app[DESCRIPTION])
    return web.Response(text=description.page, content_type="text/html", headers=_HEADERS)
