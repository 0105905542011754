"""What a request's head must hold beyond what aiohttp's parser checks. Pure."""

import re

from aiohttp import HttpVersion
from multidict import CIMultiDictProxy

from gpufc.errors import ExpectationFailed, InvalidRequest, RequestError

VERSIONS = frozenset({HttpVersion(1, 0), HttpVersion(1, 1)})

_NAME = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_ADDRESS = r"\[(?:[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~:-]+)\]"
_HOST = re.compile(rf"(?:{_NAME}|{_ADDRESS})(?::[0-9]{{0,5}})?")
"""RFC 9110, 7.2: `uri-host [":" port]`."""

_CLIENT_ID = re.compile(r"[\x21-\x7e]{1,200}")


def fault(version: HttpVersion, headers: CIMultiDictProxy[str]) -> RequestError | None:
    """The error of a request that must not be answered otherwise."""
    if version not in VERSIONS:
        return InvalidRequest(f"HTTP/{version.major}.{version.minor} is not served; use HTTP/1.1")
    hosts = headers.getall("Host", [])
    if len(hosts) > 1 or (not hosts and version == HttpVersion(1, 1)):
        return InvalidRequest("A request has one Host header")
    if hosts and not _HOST.fullmatch(hosts[0]):
        return InvalidRequest("The Host header is not a host name or address")
    codings = headers.getall("Transfer-Encoding", [])
    if codings and [one.lower() for one in codings] != ["chunked"]:
        return InvalidRequest("The only Transfer-Encoding is chunked")
    expected = headers.getall("Expect", [])
    if version == HttpVersion(1, 1) and {one.lower() for one in expected} - {"100-continue"}:
        return ExpectationFailed("The only Expect is 100-continue")
    return None


def client_id(headers: CIMultiDictProxy[str]) -> str | None:
    """The client's own id of its request, if it is fit to be echoed."""
    given = headers.get("X-Request-Id", "")
    return given if _CLIENT_ID.fullmatch(given) else None
