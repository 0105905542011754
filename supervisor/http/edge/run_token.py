"""The token of one run. A request that brings it may administer.

Each start makes a new one, prints it, and keeps it in the private runtime folder for scripts of the
same user. A front with keys has a secret there instead, which signs its browsers' sessions.
"""

import hmac
import os
import secrets
import time
from pathlib import Path

from aiohttp import web

from supervisor.access.sessions import Sessions
from supervisor.dispatch.request import ANONYMOUS, Principal, Scope
from supervisor.http.edge.credentials import presented
from supervisor.http.edge.middleware import Authenticator
from supervisor.http.edge.sign_in import SignIn

REMEDY = "Send the token that `start` has printed as `Authorization: Bearer TOKEN`"

OPERATOR = Principal("operator", frozenset({Scope.ADMIN}))


def make(path: Path) -> str:
    """Make a new token, and write it into the file `path`, readable by its owner only."""
    token = secrets.token_urlsafe(24)
    write(path, token)
    return token


def write(path: Path, token: str) -> None:
    """Write a token into a new file `path`, readable by its owner only."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(token)


def known(path: Path) -> str:
    """The token of the run that a new front continues; a new one if there is none."""
    try:
        return path.read_text() or make(path)
    except OSError:
        return make(path)


def by_token(token: str) -> Authenticator:
    """Any client may generate and read; one that brings the token may do everything, and so may a
    browser that has signed in with it.

    OpenAI's clients always send some key, so a wrong key is the same as none.
    """
    expected = token.encode()

    def holder(text: str) -> str | None:
        # aiohttp decodes bytes that are no UTF-8 to surrogates
        given = text.encode(errors="surrogateescape")
        return OPERATOR.name if hmac.compare_digest(given, expected) else None

    sign_in = SignIn(Sessions(expected, time.time), holder, {OPERATOR.name: OPERATOR}.get)

    def identify(request: web.Request) -> Principal:
        if any([holder(key) for key in presented(request.headers)]):
            return OPERATOR
        return sign_in.principal(request) or ANONYMOUS

    return Authenticator(identify, REMEDY, sign_in)
