"""The table of all routes and their scopes. Any other path is refused.

A new route is a row here, a `Spec` in `description` and a row in `API.md`; tests compare the three.
"""

from collections.abc import Callable
from functools import cache, wraps

from aiohttp import web

from gpufc.errors import Overloaded, RateLimited
from supervisor.dispatch.request import Scope
from supervisor.http import rerank
from supervisor.http.anthropic import claude_code, messages
from supervisor.http.anthropic import models as anthropic_models
from supervisor.http.dashboard import handlers as dashboard
from supervisor.http.description import described
from supervisor.http.edge.body import BODIES, Bodies, answer_expectation_later
from supervisor.http.edge.context import PRINCIPAL, SERVICES, Services, services
from supervisor.http.edge.entry import entry, tell_origins
from supervisor.http.edge.errors import ANTHROPIC_VERSION
from supervisor.http.edge.middleware import (
    OPEN_ACCESS,
    PUBLIC,
    SIGN_IN,
    Authenticator,
    Handler,
    Rule,
    access,
    add_headers,
    boundary,
)
from supervisor.http.generation import durable
from supervisor.http.generation.answer_cache import ANSWERS, AnswerCache
from supervisor.http.llama_server import adapters, state, template, tokens
from supervisor.http.llama_server import completion as native
from supervisor.http.llama_server import embeddings as llama_embeddings
from supervisor.http.ollama import chat as ollama_chat
from supervisor.http.ollama import completion as ollama_completion
from supervisor.http.ollama import embeddings as ollama_embeddings
from supervisor.http.ollama import library as ollama_library
from supervisor.http.ollama import models as ollama_models
from supervisor.http.openai import chat, completions, embeddings, media, models
from supervisor.http.openapi import handlers as openapi
from supervisor.http.openapi.handlers import DESCRIPTION, Description
from supervisor.http.responses import handlers as responses
from supervisor.http.responses.handlers import MEMORIES
from supervisor.http.responses.store import Memories
from supervisor.http.route import Route
from supervisor.http.service import admin, health, metrics, session, stats


def by_version(theirs: Handler, otherwise: Handler) -> Handler:
    """The handler of a path that Anthropic's API has too: `theirs` for its clients."""

    @wraps(otherwise)
    async def handler(request: web.Request) -> web.StreamResponse:
        chosen = theirs if ANTHROPIC_VERSION in request.headers else otherwise
        return await chosen(request)

    return handler


list_models = by_version(anthropic_models.list_models, models.list_models)
get_model = by_version(anthropic_models.get_model, models.get_model)

ROUTES = (
    Route("GET", "/livez", health.livez, PUBLIC, short=True),
    Route("GET", "/readyz", health.readyz, PUBLIC, short=True),
    Route("GET", "/health", health.readyz, Scope.READ, short=True),
    Route("GET", "/v1/health", health.readyz, Scope.READ, short=True),
    Route("GET", "/stats", stats.get_stats, Scope.READ, short=True),
    Route("GET", "/metrics", metrics.get_metrics, Scope.READ, short=True),
    Route("GET", "/metrics/endpoint", metrics.get_endpoint, Scope.READ, short=True),
    Route("GET", "/v1/models", list_models, Scope.GENERATE),
    Route("GET", "/v1/models/{model:.+}", get_model, Scope.GENERATE),
    Route("POST", "/v1/models/{model:.+}/load", admin.load_model, Scope.ADMIN),
    Route("POST", "/v1/models/{model:.+}/unload", admin.unload_model, Scope.ADMIN),
    Route("POST", "/v1/completions", completions.create_completion, Scope.GENERATE, queues=True),
    Route("POST", "/v1/chat/completions", chat.create_chat_completion, Scope.GENERATE, queues=True),
    Route("POST", "/v1/embeddings", embeddings.create_embeddings, Scope.GENERATE),
    Route("POST", "/embedding", llama_embeddings.create_embedding, Scope.GENERATE),
    Route("POST", "/embeddings", llama_embeddings.create_embedding, Scope.GENERATE),
    Route("POST", "/v1/rerank", rerank.rerank, Scope.GENERATE),
    Route("POST", "/v1/reranking", rerank.rerank, Scope.GENERATE),
    Route("POST", "/v2/rerank", rerank.rerank, Scope.GENERATE),
    Route("POST", "/api/embed", ollama_embeddings.embed_inputs, Scope.GENERATE),
    Route("POST", "/api/embeddings", ollama_embeddings.embed_prompt, Scope.GENERATE),
    Route("POST", "/v1/responses", responses.create_response, Scope.GENERATE, queues=True),
    Route("POST", "/v1/responses/input_tokens", responses.count_input_tokens, Scope.GENERATE),
    Route("GET", "/v1/responses/{response}", responses.get_response, Scope.GENERATE),
    Route("DELETE", "/v1/responses/{response}", responses.delete_response, Scope.GENERATE),
    Route("POST", "/v1/responses/{response}/cancel", responses.cancel_response, Scope.GENERATE),
    Route(
        "GET", "/v1/responses/{response}/input_items", responses.list_input_items, Scope.GENERATE
    ),
    Route("POST", "/v1/messages", messages.create_message, Scope.GENERATE, queues=True),
    Route("POST", "/v1/messages/count_tokens", messages.count_tokens, Scope.GENERATE),
    Route("GET", "/api/hello", claude_code.hello, Scope.GENERATE, short=True),
    Route("POST", "/api/event_logging/batch", claude_code.drop_events, Scope.GENERATE),
    Route("DELETE", "/v1/requests", durable.delete_request, Scope.GENERATE),
    Route("GET", "/lora-adapters", adapters.list_adapters, Scope.GENERATE),
    Route("POST", "/api/chat", ollama_chat.chat, Scope.GENERATE, queues=True),
    Route("POST", "/api/generate", ollama_completion.generate_text, Scope.GENERATE, queues=True),
    Route("GET", "/api/tags", ollama_models.list_tags, Scope.GENERATE),
    Route("GET", "/api/ps", ollama_models.list_loaded, Scope.GENERATE),
    Route("GET", "/api/version", ollama_models.version, Scope.GENERATE),
    Route("POST", "/api/show", ollama_models.show, Scope.GENERATE),
    Route("POST", "/api/pull", ollama_library.pull, Scope.GENERATE),
    Route("POST", "/api/create", ollama_library.refuse_change, Scope.GENERATE),
    Route("POST", "/api/copy", ollama_library.refuse_change, Scope.GENERATE),
    Route("POST", "/api/push", ollama_library.refuse_change, Scope.GENERATE),
    Route("DELETE", "/api/delete", ollama_library.refuse_change, Scope.GENERATE),
    Route("POST", "/completion", native.create_completion, Scope.GENERATE, queues=True),
    Route("POST", "/infill", native.fill_gap, Scope.GENERATE, queues=True),
    Route("POST", "/apply-template", template.apply_template, Scope.GENERATE),
    Route("GET", "/props", state.get_props, Scope.READ),
    Route("GET", "/slots", state.get_slots, Scope.READ),
    Route("POST", "/tokenize", tokens.tokenize, Scope.GENERATE),
    Route("POST", "/detokenize", tokens.detokenize, Scope.GENERATE),
    Route("POST", "/admin/restart", admin.restart, Scope.ADMIN),
    Route("POST", "/admin/swap", admin.swap, Scope.ADMIN),
    Route("POST", "/admin/reload", admin.reload, Scope.ADMIN),
    Route("POST", "/admin/models/load", admin.load_model, Scope.ADMIN),
    Route("POST", "/admin/models/unload", admin.unload_model, Scope.ADMIN),
    Route("GET", "/", session.opened_by_token(dashboard.get_page), Scope.READ, page=True),
    Route("POST", "/session", session.sign_in, Scope.READ, signs_in=True),
    Route("GET", "/session", session.get_session, Scope.READ),
    Route("DELETE", "/session", session.sign_out, Scope.READ),
    Route("GET", "/dashboard/events", dashboard.get_events, Scope.READ),
    Route("GET", "/dashboard/{build}/{file:.+}", dashboard.get_asset, Scope.READ),
    Route("GET", "/openapi.json", openapi.get_document, Scope.READ),
    Route("GET", "/docs", openapi.get_page, Scope.READ, page=True),
    *(Route("POST", path, media.refuse_media, Scope.GENERATE) for path in media.PATHS),
)


LLAMA_SERVER_PATHS = frozenset(
    {
        *("/v1/models", "/v1/completions", "/v1/chat/completions"),
        *("/v1/responses", "/v1/rerank", "/v1/reranking"),
    }
)
"""Paths that llama-server also has without `/v1`."""


def spellings(path: str) -> list[str]:
    """The paths of a route: as in the table, as llama-server has it, each with a slash behind."""
    paths = [path, path.removeprefix("/v1")] if path in LLAMA_SERVER_PATHS else [path]
    # the longer one first: the last part of a path may match any text
    return [one for base in paths for one in (f"{base}/", base) if one != "//"]


def create_web_app(front: Services, authenticator: Authenticator = OPEN_ACCESS) -> web.Application:
    """The application with all routes behind the middleware."""
    app = web.Application(client_max_size=front.config.limits.max_body_bytes)
    scopes: dict[Rule, Scope | None] = {}
    table: dict[Rule, Route] = {}
    for route in ROUTES:
        for path in spellings(route.path):
            added = app.router.add_route(
                route.method, path, route.handler, expect_handler=answer_expectation_later
            )
            if route.method == "GET":
                app.router.add_route("HEAD", path, route.handler)
            if added.resource is not None:
                scopes[route.method, added.resource.canonical] = route.scope
                table[route.method, added.resource.canonical] = route

    def guard(request: web.Request, rule: Rule) -> None:
        require_place(request, table[rule])

    identify = front.hooks.identify if front.hooks is not None else None
    forms = {rule: session.form for rule, route in table.items() if route.page}
    signs_in = {rule for rule, route in table.items() if route.signs_in}
    checked = access(scopes, authenticator, guard, forms, signs_in, identify)
    config = front.config
    app.middlewares.extend([boundary, entry(config.access, config.server.host), checked])
    app.on_response_prepare.append(add_headers)
    if config.access.cors_origins:
        app.on_response_prepare.append(tell_origins(config.access))
    app[SERVICES] = front
    app[SIGN_IN] = authenticator.sign_in
    make: Callable[[], Description] = _description
    app[DESCRIPTION] = make
    dashboard.install(app, front)
    app[MEMORIES] = Memories(front.config.limits)
    app[metrics.ENDPOINT] = metrics.EndpointWatch(front)
    app[ANSWERS] = AnswerCache.of(front.config.limits)
    bodies = app[BODIES] = Bodies(front.config.limits)
    app.on_cleanup.append(bodies.close)
    return app


@cache
def _description() -> Description:
    """The same for every application of a process."""
    return Description.of(described(ROUTES))


def require_rate(request: web.Request, route: Route) -> None:
    """Count a request against its key's limits. Raises `RateLimited`."""
    if route.scope is not Scope.GENERATE or route.method != "POST":
        return
    account = request[PRINCIPAL].account
    if account is None:
        return
    try:
        account.note_request()
    except RateLimited as err:
        services(request).dispatcher.ledger.rejected(err)
        raise


def require_place(request: web.Request, route: Route) -> None:
    """Raises `Overloaded` if the connection is in the reserve and the route is not short, or if the
    route's sequences could not wait now, and `RateLimited` by the key's limits."""
    front = services(request)
    if not route.short and getattr(request.protocol, "is_in_reserve", False):
        raise Overloaded(
            "There are too many connections",
            retry_after_s=front.config.limits.keepalive_timeout_s,
        )
    if route.queues and not durable.is_known(request):
        front.dispatcher.require_room(request[PRINCIPAL])
    require_rate(request, route)  # last: a request that is refused costs its key nothing
