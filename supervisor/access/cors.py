"""Which pages of other origins may ask, and the headers that tell their browsers so. Pure.

Cookies never count for other origins, so `Access-Control-Allow-Credentials` is never sent: their
pages bring keys in headers.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

METHODS = "GET, HEAD, POST, DELETE"
LIFE_S = 600
"""How long a browser may remember the answer to its preflight."""

_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?: *, *[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")


class Origins:
    """The origins that are allowed; `*` in one is any text."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [pattern.lower().removesuffix("/") for pattern in patterns]
        self._any = "*" in patterns

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may read answers."""
        return any(fnmatchcase(origin.lower(), pattern) for pattern in self._patterns)

    def headers(self, request: Mapping[str, str]) -> dict[str, str]:
        """The headers of the answer to a request; empty for one of no allowed origin."""
        origin = request.get("Origin")
        if origin is None or not self.allows(origin):
            return {} if self._any or not self._patterns else {"Vary": "Origin"}
        allowed = {"Access-Control-Allow-Origin": "*" if self._any else origin}
        if not self._any:
            allowed["Vary"] = "Origin"
        return allowed | {"Access-Control-Expose-Headers": "*"}

    def preflight(self, request: Mapping[str, str]) -> dict[str, str] | None:
        """The headers of the answer to an `OPTIONS` request; None if it is not the question of an
        allowed origin's page whether it may ask."""
        origin = request.get("Origin")
        asked = request.get("Access-Control-Request-Method")
        if origin is None or asked is None or not self.allows(origin):
            return None
        wanted = request.get("Access-Control-Request-Headers", "")
        answer = self.headers(request) | {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Max-Age": str(LIFE_S),
        }
        if _NAMES.fullmatch(wanted):
            answer["Access-Control-Allow-Headers"] = wanted
        if request.get("Access-Control-Request-Private-Network") == "true":
            answer["Access-Control-Allow-Private-Network"] = "true"
        return answer
