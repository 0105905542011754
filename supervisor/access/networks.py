"""The addresses that clients may have, behind proxies that are named too. Pure."""

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks:
    """Which addresses may ask, and which of them are proxies that name their clients."""

    def __init__(self, allowed: Sequence[str], proxies: Sequence[str]) -> None:
        """Networks in CIDR. Without `allowed`, any address may ask. Raises `ValueError`."""
        self._allowed = _networks(allowed)
        self._proxies = _networks(proxies)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """The client's address, by the connection's peer and the `X-Forwarded-For` headers.

        Each proxy adds its own peer at the end of the header. So the last address that is no named
        proxy is the client's; what stands before it, the client may have written itself. Empty for
        a proxy's entry that is no address.
        """
        if not self._proxies:
            return peer
        chain = [entry.strip() for header in forwarded for entry in header.split(",")]
        client = peer
        while chain and _is_in(_parsed(client), self._proxies):
            address = _parsed(_without_port(chain.pop()))
            client = "" if address is None else str(address)
        return client

    def allows(self, address: str) -> bool:
        """Whether a client with this address may ask. Connections without one may not if addresses
        are configured."""
        return not self._allowed or _is_in(_parsed(address), self._allowed)


def _networks(given: Sequence[str]) -> list[Network]:
    return [ipaddress.ip_network(one, strict=False) for one in given]


def _is_in(address: Address | None, networks: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in networks)


def _without_port(entry: str) -> str:
    """Some proxies write a port: `10.0.0.1:5000`, `[::1]:5000`."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


def _parsed(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
