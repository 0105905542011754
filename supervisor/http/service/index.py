"""`GET /`: the name and the models of this service for a browser, a sign of life for a program."""

from html import escape

from aiohttp import web

from gpufc import __version__
from supervisor.http.edge.context import services

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>gpufc</title>
<h1>gpufc {version}</h1>
<p>Serves {models} over OpenAI's API: <code>POST /v1/chat/completions</code>,
<code>/v1/completions</code>.</p>
<ul><li><a href="/readyz">/readyz</a></li><li><a href="/stats">/stats</a></li>
<li><a href="/v1/models">/v1/models</a></li></ul>
</html>
"""
_ALIVE = "Ollama is running"
"""Ollama's clients look for an answer at this path, some for this one."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def get_index(request: web.Request) -> web.Response:
    """A page without scripts and outside requests, or a text for programs."""
    accepted = request.headers.get("Accept", "*/*")
    if accepted != "*/*" and "text/html" not in accepted:
        return web.Response(text=_ALIVE)
    models = ", ".join(f"<b>{escape(name)}</b>" for name in services(request).fleet.models())
    page = _PAGE.format(version=escape(__version__), models=models)
    return web.Response(text=page, content_type="text/html", headers=_HEADERS)
