"""The middleware of every request: its id and its errors, first, and its access, last.

Between them, `entry.py` looks at its host, address and origin.

Deny by default: a route that is not in the table is refused even if it is registered.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware
from msgspec import Struct, structs

from gpufc.errors import AuthenticationFailed, NotFound, PermissionDenied, RequestError
from gpufc.ids import new_request_id
from supervisor.dispatch.request import ANONYMOUS, Principal, Scope
from supervisor.http.edge import access_log
from supervisor.http.edge.body import release
from supervisor.http.edge.context import PRINCIPAL, REQUEST_ID, STREAM
from supervisor.http.edge.entry import CLIENT_ADDRESS
from supervisor.http.edge.errors import (
    anthropic_error,
    error_response,
    from_exception,
    shape_of,
)
from supervisor.http.edge.rules import client_id
from supervisor.http.edge.sign_in import SignIn

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Rule = tuple[str, str]
"""Method and canonical path of a route."""

Form = Callable[[RequestError, str], web.Response]
"""Makes a sign-in form of a refusal and the path that was asked for."""

SIGN_IN: web.AppKey[SignIn | None] = web.AppKey("sign_in")

SERVER = "gpufc"
"""The `Server` header, without a version, which would help an attacker."""

PUBLIC = None
"""The scope of a route that needs none."""


class Authenticator(Struct, frozen=True):
    """Names the principal of a request.

    `identify` raises `AuthenticationFailed` for a request that gets none. `remedy` tells an
    anonymous client how to get more rights; it ends the message of a 401. With `sign_in`, browsers
    may exchange their credentials for a session.
    """

    identify: Callable[[web.Request], Principal]
    remedy: str = ""
    sign_in: SignIn | None = None


OPEN_ACCESS = Authenticator(lambda _request: ANONYMOUS)
"""Without keys, every client may generate and read."""


@web.middleware
async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, and turn any exception from inside into an answer."""
    request[REQUEST_ID] = new_request_id()
    began = time.monotonic()
    try:
        response = await handler(request)
    except (ConnectionError, asyncio.CancelledError):
        access_log.answered(request, access_log.CLIENT_LEFT, began)
        raise
    except Exception as exc:  # the request boundary
        # a name for the error would be a cycle with its traceback: it kept the body until collected
        response = error_response(
            from_exception(exc, request), request[REQUEST_ID], shape_of(request)
        )
        if isinstance(exc, web.HTTPMethodNotAllowed) and response.status == exc.status:
            response.headers["Allow"] = ", ".join(sorted(exc.allowed_methods))
        if not request.content.is_eof():
            # the rest of the body would be read as the next request, or waited for
            response.force_close()
    finally:
        release(request)
    access_log.answered(request, response.status, began)
    request.pop(STREAM, None)  # an idle connection keeps its last request
    return response


async def add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Set the headers of every answer: a prepare hook, so that streams have them too."""
    response.headers["X-Request-Id"] = request[REQUEST_ID]
    if shape_of(request) is anthropic_error:
        response.headers["request-id"] = request[REQUEST_ID]  # Anthropic's name for it
    response.headers["Server"] = SERVER
    given = client_id(request.headers)
    if given is not None:
        response.headers["X-Client-Request-Id"] = given


def _told_apart(principal: Principal, request: web.Request) -> Principal:
    """Anonymous clients are told apart by their address."""
    address = request[CLIENT_ADDRESS]
    if not principal.is_anonymous or not address:
        return principal
    return structs.replace(principal, address=address)


def _takes_pages(request: web.Request) -> bool:
    accepted = request.headers.get("Accept", "*/*")
    return "text/html" in accepted or "*/*" in accepted


def _refusal(principal: Principal, scope: Scope, remedy: str) -> RequestError:
    message = f"This needs the scope {scope.value!r}"
    if principal.is_anonymous:
        return AuthenticationFailed(f"{message}. {remedy}" if remedy else message)
    return PermissionDenied(message)


def access(
    rules: Mapping[Rule, Scope | None],
    authenticator: Authenticator,
    guard: Callable[[web.Request, Rule], None],
    forms: Mapping[Rule, Form],
    signs_in: Container[Rule],
    identify: Callable[[Mapping[str, str], str], Awaitable[Principal | None]] | None = None,
) -> Middleware:
    """Lets a request through if the table allows its principal the route, and `guard` does not
    raise. The body is unread then.

    A browser that is refused one of `forms` gets its form. A route of `signs_in` has its
    credentials in its body, and its handler refuses. `identify` goes before the authenticator: it
    may name the principal by headers and address."""

    async def allowed(request: web.Request, scope: Scope) -> Principal:
        # a connection may bring its principal; its requests' headers mean nothing here then
        known: Principal | None = getattr(request.protocol, "principal", None)
        if known is None and identify is not None:
            known = await identify(request.headers, request[CLIENT_ADDRESS])
        principal = known or authenticator.identify(request)
        if not principal.may(scope):
            raise _refusal(principal, scope, authenticator.remedy)
        return principal

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        match_info = request.match_info
        if match_info.http_exception is not None:
            raise match_info.http_exception
        resource = match_info.route.resource
        method = "GET" if request.method == "HEAD" else request.method
        rule = (method, resource.canonical if resource else "")
        if rule not in rules:
            raise NotFound(f"There is no route {request.method} {request.path}")
        scope = rules[rule]
        if scope is not PUBLIC and rule not in signs_in:
            try:
                principal = await allowed(request, scope)
            except (AuthenticationFailed, PermissionDenied) as err:
                if rule in forms and _takes_pages(request):
                    return forms[rule](err, request.path)
                raise
            request[PRINCIPAL] = _told_apart(principal, request)
        guard(request, rule)
        return await handler(request)

    return check
