"""The names under which the service may be asked for: the `Host` header. Pure.

A page of any site can have its own name resolve to this machine (DNS rebinding). The browser then
takes our answers for that site's own. But it sends the site's name as `Host`.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

_LOCAL = ("*.localhost",)
"""Browsers never ask a DNS server for these."""


class Hosts:
    """This machine's own names and the configured ones.

    Every address is allowed: a page that has an address as its name comes from there. So is every
    name without a dot, as containers have: no site of the internet has one.
    """

    def __init__(self, own: Iterable[str], allowed: Sequence[str]) -> None:
        """`own` are names of this machine; in `allowed`, `*` is any text."""
        named = {name for name in map(_bare, own) if name}
        self._names = named | {f"{name}.local" for name in named if "." not in name}
        self._patterns = (*_LOCAL, *map(_bare, allowed))

    def allows(self, host: str) -> bool:
        """Whether a request with this `Host` header may pass; with an empty one, no browser sent
        it."""
        name = _bare(_without_port(host))
        if "." not in name or name in self._names or _is_address(name):
            return True
        return any(fnmatchcase(name, pattern) for pattern in self._patterns)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _bare(name: str) -> str:
    return name.strip().lower().removesuffix(".")


def _is_address(name: str) -> bool:
    inner = name[1:-1].partition("%")[0] if name.startswith("[") else name
    try:
        ipaddress.ip_address(inner)
    except ValueError:
        return False
    return True
