"""The table of all routes and their scopes. Any other path is refused."""

from aiohttp import web
from msgspec import Struct

from supervisor.dispatch.request import Scope
from supervisor.http import admin, chat, completions, health, index, models, stats, tokens
from supervisor.http.context import SERVICES, Services
from supervisor.http.middleware import (
    OPEN_ACCESS,
    PUBLIC,
    Authenticator,
    Handler,
    access,
    add_headers,
    boundary,
)


class Route(Struct, frozen=True):
    """One route. `scope` is the right that it needs; `PUBLIC` needs none."""

    method: str
    path: str
    handler: Handler
    scope: Scope | None


ROUTES = (
    Route("GET", "/livez", health.livez, PUBLIC),
    Route("GET", "/readyz", health.readyz, PUBLIC),
    Route("GET", "/health", health.readyz, Scope.READ),
    Route("GET", "/stats", stats.get_stats, Scope.READ),
    Route("GET", "/v1/models", models.list_models, Scope.GENERATE),
    Route("GET", "/v1/models/{model:.+}", models.get_model, Scope.GENERATE),
    Route("POST", "/v1/completions", completions.create_completion, Scope.GENERATE),
    Route("POST", "/v1/chat/completions", chat.create_chat_completion, Scope.GENERATE),
    Route("POST", "/tokenize", tokens.tokenize, Scope.GENERATE),
    Route("POST", "/detokenize", tokens.detokenize, Scope.GENERATE),
    Route("POST", "/admin/restart", admin.restart, Scope.ADMIN),
    Route("POST", "/admin/swap", admin.swap, Scope.ADMIN),
    Route("GET", "/", index.get_index, Scope.READ),
)


def create_web_app(
    services: Services, authenticator: Authenticator = OPEN_ACCESS
) -> web.Application:
    """The application with all routes behind the middleware."""
    app = web.Application(client_max_size=services.config.limits.max_body_bytes)
    rules = {}
    for route in ROUTES:
        added = app.router.add_route(route.method, route.path, route.handler)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, route.handler)
        if added.resource is not None:
            rules[route.method, added.resource.canonical] = route.scope
    app.middlewares.extend([boundary, access(rules, authenticator)])
    app.on_response_prepare.append(add_headers)
    app[SERVICES] = services
    return app
