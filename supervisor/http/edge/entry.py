"""What a request needs before its access is looked at: an allowed `Host`, address and origin."""

import socket
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from aiohttp.typedefs import Middleware

from gpufc.config import AccessConfig
from gpufc.errors import PermissionDenied
from supervisor.access.cors import Origins
from supervisor.access.hosts import Hosts
from supervisor.access.networks import Networks

CLIENT_ADDRESS = web.RequestKey("client_address", str)
"""The client's address: the connection's peer, or what a trusted proxy says."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def names(host: str) -> Iterable[str]:
    """This machine's own names: the configured one, and what it calls itself."""
    own = socket.gethostname()
    return host, own, own.partition(".")[0]


def entry(access: AccessConfig, host: str) -> Middleware:
    """Lets a request through that may be looked at at all. `host` is the configured one.

    A connection that did not come from a listening socket brings its principal. Its client asks
    for another machine's name, and its address was looked at there.
    """
    hosts = Hosts(names(host), access.allowed_hosts)
    networks = Networks(access.allowed_addresses, access.trusted_proxies)
    origins = Origins(access.cors_origins)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if getattr(request.protocol, "principal", None) is not None:
            request[CLIENT_ADDRESS] = request.remote or ""
            return await handler(request)
        asked = request.headers.get("Host", "")
        if not hosts.allows(asked):
            raise PermissionDenied(
                f"The Host {asked!r} is no name of this service: `allowed_hosts` may list it"
            )
        peer = request.remote or ""
        address = networks.client(peer, request.headers.getall("X-Forwarded-For", []))
        if not networks.allows(address):
            raise PermissionDenied("Clients of this address may not use this service")
        request[CLIENT_ADDRESS] = address or peer
        if request.method == "OPTIONS":
            headers = origins.preflight(request.headers)
            if headers is not None:
                return web.Response(status=204, headers=headers)
        return await handler(request)

    return check


def tell_origins(
    access: AccessConfig,
) -> Callable[[web.BaseRequest, web.StreamResponse], Awaitable[None]]:
    """Tells browsers which pages may read an answer: a prepare hook, so that streams and errors
    say it too."""
    origins = Origins(access.cors_origins)

    async def tell(request: web.BaseRequest, response: web.StreamResponse) -> None:
        for name, value in origins.headers(request.headers).items():
            response.headers.setdefault(name, value)

    return tell
