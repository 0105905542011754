"""The dashboard's routes: the page, its files, and its stream of events."""

import asyncio
import time

from aiohttp import web

from gpufc import __version__
from gpufc.errors import NotFound, Overloaded
from supervisor.dispatch.request import Scope
from supervisor.http.dashboard.assets import assets
from supervisor.http.dashboard.feed import Feed, encoded
from supervisor.http.dashboard.messages import Hello
from supervisor.http.dashboard.snapshot import machine_history
from supervisor.http.edge.context import PRINCIPAL, Services, services
from supervisor.http.edge.server import RETIRED
from supervisor.http.edge.streams import HEADERS, SERVER_SENT_EVENTS, EventStream

FEED = web.AppKey("feed", Feed)

MOST_VIEWERS = 64
"""Administrators get in beyond it: others must not keep them out."""

LIFE_S = 600.0
"""A stream ends after this time. The page asks again, and its key is looked at again."""

_ALIVE = "Ollama is running"
"""Ollama's clients look for an answer at this path, some for this one."""

_POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"),
        *("img-src 'self' data: blob:", "form-action 'self'", "base-uri 'none'"),
        *("frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'"),
    )
)
_SAFE = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_FOR_EVER = "private, max-age=31536000, immutable"


def install(app: web.Application, front: Services) -> None:
    """Give the application its feed."""
    feed = app[FEED] = Feed(front)

    async def close(_app: web.Application) -> None:
        feed.close()

    app.on_shutdown.append(close)


async def get_page(request: web.Request) -> web.Response:
    """`GET /`: the dashboard for a browser, a sign of life for a program."""
    accepted = request.headers.get("Accept", "*/*")
    if accepted != "*/*" and "text/html" not in accepted:
        return web.Response(text=_ALIVE)
    found = await asyncio.to_thread(assets)
    headers = _SAFE | {"Cache-Control": "no-cache", "Vary": "Accept"}
    return _file(request, found.page, "text/html", f"{found.build}-page", headers)


async def get_asset(request: web.Request) -> web.Response:
    """`GET /dashboard/{build}/{file}`: a file of the page."""
    found = await asyncio.to_thread(assets)
    asset = found.files.get(request.match_info["file"])
    if asset is None or request.match_info["build"] != found.build:
        raise NotFound(f"There is no route {request.method} {request.path}")
    headers = _SAFE | {"Cache-Control": _FOR_EVER}
    return _file(request, asset.body, asset.content_type, found.build, headers)


def _file(
    request: web.Request, body: bytes, content_type: str, tag: str, headers: dict[str, str]
) -> web.Response:
    etag = f'"{tag}"'
    headers = headers | {"ETag": etag}
    if any(known.value in {tag, "*"} for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    charset = None if content_type == "image/svg+xml" else "utf-8"
    return web.Response(body=body, content_type=content_type, charset=charset, headers=headers)


async def get_events(request: web.Request) -> web.StreamResponse:
    """`GET /dashboard/events`: the dashboard's data, once a second, as server-sent events."""
    feed = request.app[FEED]
    if feed.n_asked >= MOST_VIEWERS and not request[PRINCIPAL].may(Scope.ADMIN):
        raise Overloaded("Too many dashboards are open", retry_after_s=10.0)
    feed.n_asked += 1
    try:
        return await _sent(request, feed)
    finally:
        feed.n_asked -= 1


async def _sent(request: web.Request, feed: Feed) -> web.StreamResponse:
    found = await asyncio.to_thread(assets)
    response = EventStream(headers={"Content-Type": SERVER_SENT_EVENTS, **HEADERS})
    await response.prepare(request)
    await response.write(encoded(_hello(request, feed, found.build)))
    principal = request[PRINCIPAL]
    is_admin = principal.may(Scope.ADMIN)
    shows = services(request).shows if principal.models else None
    retired = request.app[RETIRED]
    events = feed.follow(is_admin=is_admin, shows=shows)
    deadline = asyncio.get_running_loop().time() + LIFE_S
    try:
        async for event in events:
            await response.write(event)
            if retired.is_set() or asyncio.get_running_loop().time() > deadline:
                break  # another front goes on with the page, or its key is looked at again
    finally:
        await events.aclose()
    await response.write_eof()
    return response


def _hello(request: web.Request, feed: Feed, build: str) -> Hello:
    front, principal = services(request), request[PRINCIPAL]
    scopes = tuple(scope for scope in Scope if principal.may(scope))
    is_admin = Scope.ADMIN in scopes
    return Hello(
        build=build,
        version=__version__,
        started_at=front.started_at,
        now=time.time(),
        scopes=scopes,
        is_anonymous=principal.is_anonymous,
        needs_key=front.keys is not None,
        runtime_dir=str(front.runtime_dir or "") if is_admin else "",
        history=tuple(feed.history),
        ended=tuple(row for row in feed.ended if front.shows(row.model)),
        machine=machine_history(front),
    )
