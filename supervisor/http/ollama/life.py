"""How long a model stays: `keep_alive`, and requests without a prompt, which load or unload it."""

import re

from aiohttp import web

from gpufc.errors import PermissionDenied
from supervisor.dispatch.request import Scope
from supervisor.http.edge.context import PRINCIPAL, services
from supervisor.http.generation.loaded import in_memory

LOADED, UNLOADED = "load", "unload"

MOST_CHARS = 64
"""Of a duration. A longer text is read as none."""
_NUMBER = re.compile(r"\d*\.?\d+")
_PART = re.compile(r"(\d*\.?\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_S = 31_536_000.0


async def done_reason(request: web.Request, model: str, keep_alive: object) -> str:
    """Wait until the model is loaded, unless it is to be unloaded; the reason of the answer.

    It is unloaded when it is idle. The only model of a service stays, and `/api/ps` goes on to show
    it. Raises `PermissionDenied` for a key that may unload nothing, `RequestError` if no worker
    comes.
    """
    if is_over(keep_alive) and not _may_unload(request):
        raise PermissionDenied("To unload a model needs the scope 'admin'", param="keep_alive")
    keep(request, model, keep_alive)
    if is_over(keep_alive):
        return UNLOADED
    await in_memory(services(request), model)
    return LOADED


def keep(request: web.Request, model: str, keep_alive: object) -> None:
    """Let the model stay as long as a request wishes. A text that is no duration is no wish.

    The wish of a key without the scope `admin` does not shorten the time that it has: the requests
    of other keys would wait for the model's next load."""
    roster = services(request).roster
    if roster is not None:
        roster.keep_alive(model, seconds_of(keep_alive), may_shorten=_may_unload(request))


def _may_unload(request: web.Request) -> bool:
    principal = request[PRINCIPAL]
    return principal.is_anonymous or principal.may(Scope.ADMIN)


def seconds_of(keep_alive: object) -> float | None:
    """A duration in seconds: a number, or a text such as `5m`, `1h30m`, `-1`, `0`. Negative means
    for ever, None that it is none."""
    if isinstance(keep_alive, bool):
        return None
    if isinstance(keep_alive, int | float):
        return -1.0 if keep_alive < 0 else min(float(keep_alive), LONGEST_S)
    if not isinstance(keep_alive, str) or len(keep_alive) > MOST_CHARS:
        return None
    text = keep_alive.strip()
    if text.startswith("-"):
        return 0.0 if seconds_of(text[1:]) == 0 else -1.0
    if _NUMBER.fullmatch(text):
        return min(float(text), LONGEST_S)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return min(sum(float(number) * _SECONDS[unit] for number, unit in parts), LONGEST_S)


def is_over(keep_alive: object) -> bool:
    """Whether a duration is zero: a number of seconds, or a text such as `0`, `0s` or `0h0m`."""
    return seconds_of(keep_alive) == 0
