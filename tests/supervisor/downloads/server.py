"""A hub that does to its clients what hubs and mirrors do."""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from tests.supervisor.dispatch.fakes import until

CONTENT = b"GGUF" + bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Hub:
    """`cuts` are the bytes that each next answer sends before its connection is cut."""

    def __init__(self) -> None:
        self.url = ""
        self.cuts: list[int] = []
        self.content = CONTENT
        self.tag: str | None = '"one"'
        self.knows_ranges = True
        self.n_taken = 0
        """What the client has taken, as its test tells."""
        self.claimed: int | None = None
        self.statuses: list[int] = []
        self.is_silent = False
        """Whether a request for a file gets no answer."""
        self.n_chunked: int | None = None
        """The bytes of answers that do not tell their size, and end early as if they were whole."""
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.listing: Any = []

    async def file(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.path, headers))
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        if self.is_silent:
            await until(lambda: request.transport is None)
        if self.n_chunked is not None:
            short = web.StreamResponse()
            short.enable_chunked_encoding()
            await short.prepare(request)
            await short.write(self.content[: self.n_chunked])
            await short.write_eof()
            return short
        start, whole = 0, self.content
        is_same = headers.get("if-range") in {None, self.tag}
        if self.knows_ranges and "range" in headers and is_same:
            start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(whole):
                return web.Response(status=416)
        response = web.StreamResponse(status=206 if start else 200)
        if self.tag is not None:
            response.headers["ETag"] = self.tag
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        response.content_length = (self.claimed or len(whole)) - start
        await response.prepare(request)
        part = whole[start:]
        if self.cuts or self.claimed is not None:
            sent = part[: self.cuts.pop(0)] if self.cuts else part
            await response.write(sent)
            await until(lambda: self.n_taken >= start + len(sent) or self.claimed is not None)
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(part)
        return response

    async def list(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, dict(request.headers)))
        return web.json_response(self.listing)

    async def redirect(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, dict(request.headers)))
        raise web.HTTPFound(f"{request.query['to']}")


@contextlib.asynccontextmanager
async def hub() -> AsyncIterator[Hub]:
    made = Hub()
    app = web.Application()
    app.router.add_get("/api/models/{owner}/{repo}/tree/main", made.list)
    app.router.add_get("/moved/{name}", made.redirect)
    app.router.add_get("/{path:.+}", made.file)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()
