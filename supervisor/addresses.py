"""From the configured host to addresses that can be listened on.

A host name may mean several addresses. An address of a family that the machine does not have is
left out as long as another one can be used: `localhost` means `::1` too where IPv6 is off.
"""

import errno
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""Errors of an address that this machine does not have."""


class Address(NamedTuple):
    """One address to listen on. `name` is as `bind` takes it, with the scope of a link-local
    one."""

    family: socket.AddressFamily
    name: tuple[Any, ...]

    def at(self, port: int) -> "Address":
        """The same address with another port."""
        return Address(self.family, (self.name[0], port, *self.name[2:]))


def bare(host: str) -> str:
    """A host without the brackets that URLs put around IPv6 addresses."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def lookup(host: str, port: int) -> list[Address]:
    """The addresses of a host, at least one. May block. Raises `OSError` or `UnicodeError`."""
    found = socket.getaddrinfo(bare(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(Address(entry[0], entry[4]) for entry in found))


def bound(address: Address) -> socket.socket:
    """A socket that is bound there and does not listen yet. Raises `OSError`."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address.name)
    except OSError:
        sock.close()
        raise
    return sock


def listening(addresses: Sequence[Address], backlog: int) -> list[socket.socket]:
    """Sockets that listen at all addresses that the machine has, on one port.

    Raises the first `OSError` if there is another fault, or if the machine has none of them.
    """
    sockets: list[socket.socket] = []
    faults: list[OSError] = []
    try:
        for address in addresses:
            # with port 0, all addresses get the port that the first one got
            port = sockets[0].getsockname()[1] if sockets else address.name[1]
            try:
                sock = bound(address.at(port))
            except OSError as err:
                if err.errno not in ABSENT:
                    raise
                faults.append(err)
                continue
            sockets.append(sock)
            # at once: two sockets can be bound to one port as long as neither listens
            sock.listen(backlog)
            sock.setblocking(False)
        if faults and not sockets:
            raise faults[0]
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets
