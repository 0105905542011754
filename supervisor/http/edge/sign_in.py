"""Signing in with a browser: a key, or the run's token, is exchanged for a cookie.

    POST /session          key=TEXT, or {"key": TEXT}: sets the cookie
    GET /?token=TOKEN      the address that `start` prints: sets the cookie, leads to `/`
    DELETE /session        ends the session and takes the cookie back

The cookie stands for what the key may do *now*: a revoked key ends its sessions. It holds no key,
no script can read it, and it does not count for requests that other origins make.
"""

from collections.abc import Callable

from aiohttp import web
from msgspec import Struct

from supervisor.access.origin import counts_cookies
from supervisor.access.sessions import LIFE_S, Session, Sessions
from supervisor.dispatch.request import Principal

_NAME = "gpufc-session"


class Opened(Struct, frozen=True):
    """A new session: its text, and the principal that it stands for."""

    text: str
    principal: Principal


class SignIn(Struct, frozen=True):
    """The sessions, and what they stand for.

    `holder_of` gives the identity behind a key or token, None for a wrong one. `principal_of` gives
    the principal of an identity now, None if it has ended.
    """

    sessions: Sessions
    holder_of: Callable[[str], str | None]
    principal_of: Callable[[str], Principal | None]

    def principal(self, request: web.Request) -> Principal | None:
        """The principal of the request's session, if it has one that counts."""
        session = self.session(request)
        return None if session is None else self.principal_of(session.holder)

    def session(self, request: web.Request) -> Session | None:
        """The request's session, if it has one that counts."""
        if not counts_cookies(request.method, request.headers):
            return None
        return self.sessions.read(request.cookies.get(cookie_name(request), ""))

    def open(self, text: str) -> Opened | None:
        """A new session; None for a wrong key or token. Raises `AuthenticationFailed` for a key
        that has expired."""
        holder = self.holder_of(text)
        principal = None if holder is None else self.principal_of(holder)
        if holder is None or principal is None:
            return None
        return Opened(self.sessions.open(holder), principal)

    def end(self, request: web.Request) -> None:
        """End the request's session."""
        self.sessions.end(request.cookies.get(cookie_name(request), ""))


def cookie_name(request: web.Request) -> str:
    """The cookie's name. All ports of a host share cookies, so it holds the front's port."""
    transport = request.transport
    name = None if transport is None else transport.get_extra_info("sockname")
    return f"{_NAME}-{name[1]}" if isinstance(name, tuple) else _NAME


def set_cookie(request: web.Request, response: web.Response, text: str) -> None:
    """Give the browser its session."""
    response.set_cookie(
        cookie_name(request),
        text,
        max_age=LIFE_S,
        path="/",
        secure=request.secure,
        httponly=True,
        samesite="Strict",
    )


def drop_cookie(request: web.Request, response: web.Response) -> None:
    """Take the session back."""
    response.del_cookie(
        cookie_name(request), path="/", secure=request.secure, httponly=True, samesite="Strict"
    )
