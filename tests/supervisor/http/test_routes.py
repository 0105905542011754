"""Deny by default: every route there is passes the one middleware, with a scope of its own."""

import re

from aiohttp import web

from gpufc.errors import AuthenticationFailed
from supervisor.dispatch.request import Principal, Scope
from supervisor.http.edge.context import SERVICES
from supervisor.http.edge.middleware import Authenticator
from supervisor.http.edge.server import FrontRunner
from supervisor.http.routes import ROUTES, create_web_app, spellings
from tests.supervisor.http.conftest import Answer, Service, running

PUBLIC_PATHS = {"/livez", "/readyz"}


def test_only_liveness_and_readiness_are_public() -> None:
    assert {route.path for route in ROUTES if route.scope is None} == PUBLIC_PATHS


async def test_every_registered_route_is_in_the_table() -> None:
    async with running() as service:
        registered = {
            (route.method, route.resource.canonical)
            for route in service.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
    assert registered == {
        (route.method, path.replace(":.+", ""))
        for route in ROUTES
        for path in spellings(route.path)
    }


async def test_a_route_registered_by_hand_is_refused() -> None:
    async with running() as service:
        app = create_web_app(service.app[SERVICES])

        async def leak(_request: web.Request) -> web.Response:
            raise AssertionError("reached")

        app.router.add_get("/leak", leak)
        service.runner = await _serve(service, app)
        answer = await service.get("/leak")
        assert (answer.status, answer.error["code"]) == (404, "not_found")


async def test_without_a_principal_only_public_routes_answer() -> None:
    def no_key(_request: web.Request) -> Principal:
        raise AuthenticationFailed("no key")

    async with running() as service:
        service.fleet.start_worker()
        app = create_web_app(service.app[SERVICES], Authenticator(no_key))
        service.runner = await _serve(service, app)
        for route in ROUTES:
            path = re.sub(r"\{[^}]*\}", "x", route.path)
            async with service.http.request(route.method, path, json={}) as response:
                answer = Answer(response.status, response.headers, await response.read())
            assert answer.status == (200 if path in PUBLIC_PATHS else 401), path


async def test_a_principal_reaches_the_routes_of_its_scope_only() -> None:
    reader = Principal("reader", frozenset({Scope.READ}))

    async with running() as service:
        service.fleet.start_worker()
        app = create_web_app(service.app[SERVICES], Authenticator(lambda _: reader))
        service.runner = await _serve(service, app)
        assert (await service.get("/stats")).status == 200
        answer = await service.complete()
        assert (answer.status, answer.error["type"]) == (403, "permission_error")


async def _serve(service: Service, app: web.Application) -> FrontRunner:
    """Serve another application, at another port."""
    await service.stop()
    service.app = app
    service.runner = FrontRunner(app, service.config.limits)
    await service.start()
    return service.runner
