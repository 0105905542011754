"""`GET /openapi.json` and `/docs`."""

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


DESCRIPTION = web.AppKey("description", Description)


async def get_document(request: web.Request) -> web.Response:
    """This description, as an OpenAPI document."""
    return json_response(request.app[DESCRIPTION].document)


async def get_page(request: web.Request) -> web.Response:
    """This description, as a page for people."""
    text = request.app[DESCRIPTION].page
    return web.Response(text=text, content_type="text/html", headers=_HEADERS)
