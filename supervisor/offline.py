"""Offline mode: this process opens no connection to any machine, its own included.

The configured features that would open one are switched off where they are made. This module is
the second line: it refuses connections of any code in the process, of plugins too. Unix sockets
stay allowed: workers, commands and systemd are reached by them.
"""

import asyncio
import ipaddress
import sys
from collections.abc import Callable
from typing import Any, NoReturn

_CONNECTING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOOKING_UP = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})


class Offline(PermissionError):
    """A connection was wanted, and `offline` is set."""


def forbid(loop: asyncio.AbstractEventLoop) -> None:
    """Refuse connections and name look-ups for the rest of the process's life, and in `loop`,
    which may connect without Python's sockets."""
    forbid_here()
    patched: Any = loop
    for name in ("create_connection", "create_datagram_endpoint", "sock_connect", "sock_sendto"):
        setattr(patched, name, _refusing(name))
    patched.getaddrinfo = _numeric_only(loop.getaddrinfo)


def forbid_here() -> None:
    """Refuse connections by Python's sockets for the rest of the process's life."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _CONNECTING and isinstance(arguments[-1], tuple):
        raise Offline(f"offline mode: no connection to {arguments[-1][0]}")
    if event in _LOOKING_UP and not _is_numeric(arguments[0]):
        raise Offline(f"offline mode: no look-up of {arguments[0]}")


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refused(*_arguments: object, **_options: object) -> NoReturn:
        raise Offline(f"offline mode: {name} is refused")

    return refused


def _numeric_only(look_up: Callable[..., Any]) -> Callable[..., Any]:
    def checked(host: Any, port: Any, **options: Any) -> Any:
        if not _is_numeric(host):
            raise Offline(f"offline mode: no look-up of {host}")
        return look_up(host, port, **options)

    return checked


def _is_numeric(host: object) -> bool:
    """Whether a host needs no name server. `localhost` and None are this machine."""
    text = host.decode(errors="replace") if isinstance(host, bytes) else host
    if text is None or text in {"", "localhost"}:
        return True
    try:
        ipaddress.ip_address(str(text).partition("%")[0])
    except ValueError:
        return False
    return True
