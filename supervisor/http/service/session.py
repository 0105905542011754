"""`/session`: signing in and out with a browser, and the form for it."""

from functools import wraps
from html import escape
from typing import Annotated
from urllib.parse import parse_qs

from aiohttp import web
from msgspec import Meta, Struct

from gpufc.errors import AuthenticationFailed, InvalidRequest, PermissionDenied, RequestError
from supervisor.access.origin import is_own
from supervisor.access.sessions import Session
from supervisor.dispatch.request import Principal, Scope
from supervisor.http.edge.body import read_form, read_json
from supervisor.http.edge.context import PRINCIPAL, json_response
from supervisor.http.edge.credentials import WRONG_KEY
from supervisor.http.edge.middleware import SIGN_IN, Handler
from supervisor.http.edge.sign_in import Opened, SignIn, drop_cookie, set_cookie

FORM = "application/x-www-form-urlencoded"
HOME = "/"
MOST_FIELDS = 8
PAGES = frozenset({HOME, "/docs"})
"""Where a browser may be led after signing in."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 15vh auto; padding: 1rem; }
label, input, button { display: block; width: 100%; box-sizing: border-box; font: inherit; }
input, button { margin-top: .5rem; padding: .5rem; }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>gpufc: sign in</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body><main><h1>gpufc</h1><p role="alert">{message}</p>
<form method="post" action="/session"><input type="hidden" name="next" value="{page}">
<label>Key, or the token that <code>start</code> printed
<input type="password" name="key" required autofocus autocomplete="current-password"></label>
<button>Sign in</button></form></main></body></html>
"""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # without any, the form's origin would be `null`
    "X-Content-Type-Options": "nosniff",
}


class SignInBody(Struct, frozen=True):
    """A key, or the run's token."""

    key: Annotated[str, Meta(max_length=1000)] | None = None


class SessionObject(Struct, frozen=True):
    """Who a request comes from, and what it may do. `expires` is unix time, null without a
    session."""

    name: str
    scopes: list[Scope]
    is_signed_in: bool
    expires: int | None


async def sign_in(request: web.Request) -> web.Response:
    """`POST /session`: exchanges a key, or the run's token, for a cookie."""
    if request.content_type != FORM:
        port, opened = _opened(request, (await read_json(request, SignInBody)).key or "")
        answer = json_response(_described(opened.principal, port.sessions.read(opened.text)))
        set_cookie(request, answer, opened.text)
        return answer
    fields = _fields((await read_form(request)).decode(errors="replace"))
    page = (fields.get("next") or [HOME])[-1]
    try:
        _, opened = _opened(request, (fields.get("key") or [""])[-1])
    except RequestError as err:
        return form(err, page)
    return _led(request, opened.text, page if page in PAGES else HOME)


async def get_session(request: web.Request) -> web.Response:
    """`GET /session`: who the request comes from, and what it may do."""
    port = request.app[SIGN_IN]
    return json_response(_described(request[PRINCIPAL], port.session(request) if port else None))


async def sign_out(request: web.Request) -> web.Response:
    """`DELETE /session`: ends the session of the request's cookie."""
    port = request.app[SIGN_IN]
    if port is not None:
        port.end(request)
    answer = web.Response(status=204)
    drop_cookie(request, answer)
    return answer


def opened_by_token(handler: Handler) -> Handler:
    """The handler of a page whose address may bring the run's token, as `start` prints it."""

    @wraps(handler)
    async def page(request: web.Request) -> web.StreamResponse:
        token = request.query.get("token")
        if token is None:
            return await handler(request)
        try:
            _, opened = _opened(request, token)
        except RequestError as err:
            return form(err, request.path)
        return _led(request, opened.text, HOME)

    return page


def form(error: RequestError, page: str) -> web.Response:
    """The sign-in form, for a browser without the right to see a page."""
    text = _PAGE.format(
        style=_STYLE,
        message=escape(error.message),
        page=escape(page if page in PAGES else HOME, quote=True),
    )
    headers = _HEADERS | {"x-should-retry": "false"}
    if error.status == AuthenticationFailed.status:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(text=text, status=error.status, content_type="text/html", headers=headers)


def _fields(body: str) -> dict[str, list[str]]:
    try:
        return parse_qs(body, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidRequest(f"A form has at most {MOST_FIELDS} fields") from None


def _opened(request: web.Request, text: str) -> tuple[SignIn, Opened]:
    """A new session. Raises `AuthenticationFailed`, or `PermissionDenied` for a key that may not
    read."""
    if is_own(request.headers) is False and request.method == "POST":
        raise PermissionDenied("A page of another origin may not sign in here")
    port = request.app[SIGN_IN]
    found = None if port is None else port.open(text.strip())
    if port is None or found is None:
        raise AuthenticationFailed(WRONG_KEY)
    if not found.principal.may(Scope.READ):
        raise PermissionDenied(f"The key needs the scope {Scope.READ.value!r} for this page")
    return port, found


def _led(request: web.Request, text: str, page: str) -> web.Response:
    """The way to a page, with the session in its cookie. The address bar shows no token then."""
    headers = {"Location": page, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    answer = web.Response(status=303, headers=headers)
    set_cookie(request, answer, text)
    return answer


def _described(principal: Principal, session: Session | None) -> SessionObject:
    return SessionObject(
        name=principal.shown,
        scopes=[scope for scope in Scope if principal.may(scope)],
        is_signed_in=session is not None,
        expires=session.expires if session is not None else None,
    )
