"""Whether a browser sends a request for a page of this service. Pure."""

from collections.abc import Mapping
from urllib.parse import urlsplit

SAFE = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""


def counts_cookies(method: str, headers: Mapping[str, str]) -> bool:
    """Whether the request's cookies count.

    Cookies are shared by all ports of a host, and `SameSite` is too. So a page of another service
    on this machine could post with them. A request that changes something must be of our own page.
    """
    return method in SAFE or is_own(headers) is True


def is_own(headers: Mapping[str, str]) -> bool | None:
    """Whether the page that a request is for is ours, as the browser says; None if it says
    nothing, as programs that are no browser do.

    `Sec-Fetch-Site` decides alone: a page without referrers has the origin `null`, and a proxy may
    change `Host`. Over plain HTTP, browsers send it to this machine only.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("Origin")
    if origin is None:
        return None
    return _authority(origin) == headers.get("Host", "").lower()


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
