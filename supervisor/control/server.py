"""The front's side of the control socket. Handlers only: the front does the work."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from gpufc.changes import rows
from gpufc.errors import RequestError
from gpufc.settings import row
from supervisor.control.lines import Event, send_lines
from supervisor.control.port import ControlledFront, Operator, Reloading
from supervisor.fleet.operation import Operation
from supervisor.fleet.port import ModelChange
from supervisor.routing.canary import CanaryRules

POLL_S = 0.1
_CLOSING = web.AppKey("closing", asyncio.Event)

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StopBody(Struct, frozen=True, forbid_unknown_fields=True):
    now: bool = False


class DrainBody(Struct, frozen=True, forbid_unknown_fields=True):
    lead_s: Annotated[float, Meta(ge=0.0, le=3600.0)] = 0.0
    wait: bool = False


class RestartBody(Struct, frozen=True, forbid_unknown_fields=True):
    worker: str | None = None
    now: bool = False


class SwapBody(Struct, frozen=True, forbid_unknown_fields=True):
    model_path: str
    name: str | None = None
    n_ctx: int | None = None
    n_gpu_layers: int | None = None
    canary: CanaryRules | None = None


class ReloadBody(Struct, frozen=True, forbid_unknown_fields=True):
    dry_run: bool = False


class ModelBody(Struct, frozen=True, forbid_unknown_fields=True):
    model: str


def create_control_app(front: ControlledFront, operations: Operator) -> web.Application:
    """The application for the control socket."""
    handlers = _Handlers(front, operations)
    app = web.Application(middlewares=[_errors], client_max_size=64 * 1024)
    app[_CLOSING] = asyncio.Event()
    app.on_shutdown.append(_on_shutdown)
    app.router.add_get("/livez", livez)
    app.router.add_get("/status", handlers.status)
    app.router.add_get("/config", handlers.config)
    app.router.add_post("/stop", handlers.stop)
    app.router.add_post("/drain", handlers.drain)
    app.router.add_post("/undrain", handlers.undrain)
    app.router.add_post("/restart", handlers.restart)
    app.router.add_post("/swap", handlers.swap)
    app.router.add_post("/reload", handlers.reload)
    app.router.add_post("/load", handlers.load)
    app.router.add_post("/unload", handlers.unload)
    return app


async def livez(_request: web.Request) -> web.Response:
    """The loop turns. A container's health check asks here: no port, TLS or key is in its way."""
    return web.json_response({"status": "ok"})


async def serve(app: web.Application, path: Path) -> web.AppRunner:
    """Listen on `path` with mode 0600. The caller ends it with `runner.cleanup()`.

    Replaces the socket of a front that was killed: the caller holds the runtime folder's lock, so
    no other front can be listening.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    await bind(runner, path)
    return runner


async def bind(runner: web.AppRunner, path: Path) -> None:
    """Listen on `path`, also where the socket of that name has vanished."""
    before = list(runner.sites)
    # renamed into place: a client finds the old front's socket or this one, never none
    fresh = path.with_name(f".{path.name}")
    fresh.unlink(missing_ok=True)
    await web.UnixSite(runner, fresh).start()
    os.chmod(fresh, 0o600)
    fresh.rename(path)
    for site in before:
        await site.stop()


class _Handlers:
    def __init__(self, front: ControlledFront, operations: Operator) -> None:
        self._front = front
        self._operations = operations

    async def status(self, _request: web.Request) -> web.Response:
        return _json(self._front.status())

    async def config(self, _request: web.Request) -> web.Response:
        values = self._front.effective_values()
        return _json([row(value) for value in values])

    async def stop(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request, StopBody)
        self._operations.request_stop(body.now)
        return await send_lines(request, self._draining(request.app[_CLOSING]))

    async def drain(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request, DrainBody)
        self._operations.drain(body.lead_s)
        return await send_lines(request, self._drained(request.app[_CLOSING], wait=body.wait))

    async def undrain(self, _request: web.Request) -> web.Response:
        self._operations.undrain()
        return _json({"event": "done"})

    async def restart(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request, RestartBody)
        return await send_lines(request, followed(self._operations.restart(body.worker, body.now)))

    async def swap(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request, SwapBody)
        change = ModelChange(
            model_path=body.model_path,
            n_ctx=body.n_ctx,
            n_gpu_layers=body.n_gpu_layers,
            canary=body.canary,
        )
        return await send_lines(request, followed(self._operations.swap(body.name, change)))

    async def reload(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request, ReloadBody)
        return await send_lines(request, _reloaded(self._operations.reload(is_trial=body.dry_run)))

    async def load(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request, ModelBody)
        return await send_lines(request, followed(self._operations.load(body.model)))

    async def unload(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request, ModelBody)
        return await send_lines(request, followed(self._operations.unload(body.model)))

    async def _draining(self, closing: asyncio.Event) -> AsyncIterator[Event]:
        while not closing.is_set():
            yield self._left()
            await asyncio.sleep(POLL_S)

    async def _drained(self, closing: asyncio.Event, *, wait: bool) -> AsyncIterator[Event]:
        """Yield what is left, until nothing is if the client waits; then `done`, with what is left
        by then: requests end while a line is being sent."""
        yield self._left()
        while wait and not closing.is_set() and not self._operations.is_drained:
            await asyncio.sleep(POLL_S)
            yield self._left()
        yield self._left() | {"event": "done"}

    def _left(self) -> Event:
        requests = msgspec.to_builtins(self._front.status())["requests"]
        return {
            "event": "draining",
            "running": requests["running"],
            "waiting": requests["waiting"],
        }


async def followed(replacing: Operation) -> AsyncIterator[Event]:
    """Yield a replacement's progress and its end: `done`, or `failed` with the reason."""
    try:
        async for progress in replacing.follow():
            yield {"event": "progress"} | msgspec.to_builtins(progress)
    except RequestError as err:
        yield {"event": "failed", "message": err.message, "code": err.code}
    else:
        yield {"event": "done"}


async def _reloaded(reloading: Reloading) -> AsyncIterator[Event]:
    """Yield a reload's progress and its end, with the changes."""
    async for event in followed(reloading.operation):
        if event["event"] == "done":
            event = event | {"changes": rows(reloading.changes)}
        yield event


async def _on_shutdown(app: web.Application) -> None:
    app[_CLOSING].set()


def _json(document: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")


async def body_of(request: web.Request, kind: type[T]) -> T:
    return msgspec.json.decode(await request.read() or b"{}", type=kind)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as err:
        error = {"error": {"message": err.message, "code": err.code}}
        return web.json_response(error, status=err.status)
    except msgspec.DecodeError as err:
        error = {"error": {"message": str(err), "code": "invalid_value"}}
        return web.json_response(error, status=400)
