"""What every request passes, in this order: its id and its errors, then who may do it.

Deny by default: a route that is not in the table is refused, even if somebody registers one.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware
from msgspec import structs

from gpufc.errors import AuthenticationFailed, NotFound, PermissionDenied
from gpufc.ids import new_request_id
from supervisor.dispatch.request import ANONYMOUS, Principal, Scope
from supervisor.http.context import PRINCIPAL, REQUEST_ID
from supervisor.http.errors import error_response, from_exception

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Rule = tuple[str, str]
"""Method and canonical path of a route."""

Authenticate = Callable[[web.Request], Principal]
"""Tells who asks. Raises `AuthenticationFailed`."""

PUBLIC = None
"""The scope of a route that needs none."""


def anonymous(_request: web.Request) -> Principal:
    """Without keys, everybody may generate and read."""
    return ANONYMOUS


@web.middleware
async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives the request its id, and turns whatever is raised inside into an answer."""
    request[REQUEST_ID] = new_request_id()
    began = time.monotonic()
    try:
        response = await handler(request)
    except ConnectionError:
        raise  # the client has gone; there is nobody to answer
    except Exception as exc:  # the request boundary
        error = from_exception(exc, request)
        response = error_response(error)
        if isinstance(exc, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(exc.allowed_methods))
        if not request.content.is_eof():
            # what is left of the body would be read as the next request, or waited for
            response.force_close()
    logger.debug(
        "request_answered request=%s route=%s %s status=%d seconds=%.3f",
        request[REQUEST_ID],
        request.method,
        request.path,
        response.status,
        time.monotonic() - began,
    )
    return response


async def add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """A prepare hook, so that streams carry the id as well."""
    # aiohttp refuses some requests (`Expect`) before any middleware has seen them
    response.headers["X-Request-Id"] = request.get(REQUEST_ID) or new_request_id()
    response.headers["Server"] = "gpufc"  # and not which versions of what are behind it


def _told_apart(principal: Principal, request: web.Request) -> Principal:
    """Those without a key are told apart by their address."""
    if principal is not ANONYMOUS or not request.remote:
        return principal
    return structs.replace(principal, address=request.remote)


def access(rules: Mapping[Rule, Scope | None], authenticate: Authenticate) -> Middleware:
    """Lets through what the table allows to whoever asks. Host and address lists belong here."""

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
        if scope is not PUBLIC:
            principal = authenticate(request)
            if principal is ANONYMOUS and not principal.may(scope):
                raise AuthenticationFailed("This needs the token that `start` has printed")
            if not principal.may(scope):
                raise PermissionDenied(f"This needs the scope {scope!r}")
            request[PRINCIPAL] = _told_apart(principal, request)
        return await handler(request)

    return check
