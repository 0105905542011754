"""Keys as requests bring them, and the principals that they stand for."""

from collections.abc import Mapping

from aiohttp import web

from gpufc.errors import AuthenticationFailed
from supervisor.access.ring import KeyRing
from supervisor.access.sessions import Sessions
from supervisor.dispatch.request import Principal
from supervisor.http.edge.middleware import Authenticator
from supervisor.http.edge.sign_in import SignIn

KEY_HEADERS = ("x-api-key", "api-key")
"""Anthropic's and Azure's. OpenAI's clients send `Authorization: Bearer`."""

NO_KEY = "This needs a key: send it as `Authorization: Bearer KEY`, or in the header `x-api-key`"
WRONG_KEY = "The key is not known"


def presented(headers: Mapping[str, str]) -> list[str]:
    """The keys that a request brings. Some clients send one in each header; empty ones are none."""
    scheme, _, bearer = headers.get("Authorization", "").partition(" ")
    given = [bearer] if scheme.lower() == "bearer" else []
    given += [headers.get(name, "") for name in KEY_HEADERS]
    return [key.strip() for key in given if key.strip()]


def by_keys(ring: KeyRing, sessions: Sessions) -> Authenticator:
    """Only a request with a key of the ring has a principal. The first known key counts, and
    without any the browser's session."""
    sign_in = SignIn(sessions, ring.identity, ring.holder)

    def identify(request: web.Request) -> Principal:
        given = presented(request.headers)
        if not given:
            signed_in = sign_in.principal(request)
            if signed_in is None:
                raise AuthenticationFailed(NO_KEY)
            return signed_in
        found = next(filter(None, map(ring.principal, given)), None)
        if found is None:
            raise AuthenticationFailed(WRONG_KEY)
        return found

    return Authenticator(identify, sign_in=sign_in)
