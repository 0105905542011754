"""The token of one run: who has it may administer, as long as no keys are configured.

It is made anew with each start, shown to whoever started it, and kept in the private runtime
folder, so that scripts of the same user find it.
"""

import hmac
import os
import secrets
from pathlib import Path

from aiohttp import web

from supervisor.dispatch.request import ANONYMOUS, Principal, Scope
from supervisor.http.middleware import Authenticate

OPERATOR = Principal("operator", frozenset({Scope.ADMIN}))


def make(path: Path) -> str:
    """A new token, also in the file `path`, readable by its owner only."""
    token = secrets.token_urlsafe(24)
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(token)
    return token


def known(path: Path) -> str:
    """The token of the run that a new front goes on with; a new one if there is none."""
    try:
        return path.read_text() or make(path)
    except OSError:
        return make(path)


def by_token(token: str) -> Authenticate:
    """Everybody may generate and read; who brings the token may do all.

    OpenAI's clients always send some key: one that is not the token is nobody's.
    """
    expected = token.encode()

    def authenticate(request: web.Request) -> Principal:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return ANONYMOUS
        # aiohttp has kept bytes that are no UTF-8 as surrogates
        right = hmac.compare_digest(given.strip().encode(errors="surrogateescape"), expected)
        return OPERATOR if right else ANONYMOUS

    return authenticate
