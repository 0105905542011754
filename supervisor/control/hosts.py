"""`POST /hosts/invite`, `/hosts/drain` and `/hosts/forget` on the control socket."""

from collections.abc import AsyncIterator, Coroutine
from typing import Annotated, Any, Protocol

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from supervisor.control.lines import Event, send_lines
from supervisor.control.server import body_of, followed
from supervisor.fleet.operation import Operation, Work
from supervisor.fleet.port import OnReplacement


class InviteBody(Struct, frozen=True, forbid_unknown_fields=True):
    n_hosts: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    lifetime_s: Annotated[float, Meta(gt=0)] | None = 3600.0
    """None: without an end."""


class DrainBody(Struct, frozen=True, forbid_unknown_fields=True):
    machine: str
    undo: bool = False


class ForgetBody(Struct, frozen=True, forbid_unknown_fields=True):
    machine: str


class Cluster(Protocol):
    """See `supervisor.remote.cluster.Cluster`."""

    def invite(self, n_hosts: int, lifetime_s: float | None) -> Struct: ...
    def forget(self, machine: str) -> None: ...
    def drain(
        self, machine: str, *, is_drained: bool, tell: OnReplacement
    ) -> Coroutine[Any, Any, None]: ...


class Operations(Protocol):
    """See `supervisor.operations.Operations`."""

    def begin(self, name: str, work: Work) -> Operation: ...


def add_hosts(app: web.Application, cluster: Cluster, operations: Operations) -> None:
    """Add the routes to the control socket's application."""

    async def invite(request: web.Request) -> web.StreamResponse:
        body = await body_of(request, InviteBody)
        content = cluster.invite(body.n_hosts, body.lifetime_s)
        return await send_lines(request, _one(msgspec.to_builtins(content)))

    async def drain(request: web.Request) -> web.StreamResponse:
        body = await body_of(request, DrainBody)
        operation = operations.begin(
            f"drain of {body.machine}",
            lambda tell: cluster.drain(body.machine, is_drained=not body.undo, tell=tell),
        )
        return await send_lines(request, followed(operation))

    async def forget(request: web.Request) -> web.StreamResponse:
        body = await body_of(request, ForgetBody)
        cluster.forget(body.machine)
        return await send_lines(request, _one({"event": "done"}))

    app.router.add_post("/hosts/invite", invite)
    app.router.add_post("/hosts/drain", drain)
    app.router.add_post("/hosts/forget", forget)


async def _one(event: Event) -> AsyncIterator[Event]:
    yield event
