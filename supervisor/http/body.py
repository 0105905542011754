"""Request bodies: bounded in size and time while they arrive, then decoded into typed structs."""

import asyncio
from typing import TypeVar

from aiohttp import web

from gpufc.config import LimitsConfig
from gpufc.errors import InvalidRequest, RequestTimeout, RequestTooLarge, UnsupportedMediaType
from supervisor.http.context import services
from supervisor.http.values import decode

T = TypeVar("T")


async def read_json(request: web.Request, kind: type[T]) -> T:
    """The body as `kind`.

    Raises `RequestError`, or msgspec's errors, which `errors.py` turns into one.
    """
    limits = services(request).config.limits
    _check_headers(request, limits)
    body = await _read(request, limits)
    try:
        return decode(body, kind)
    except UnicodeDecodeError as err:  # not one of msgspec's own errors
        raise InvalidRequest(f"The body is not valid UTF-8 (byte {err.start})") from None


def _check_headers(request: web.Request, limits: LimitsConfig) -> None:
    """Refuse a body by its headers, before it is read."""
    # a small compressed body can have any size once it is decompressed
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Compressed request bodies are not accepted")
    if request.content_type != "application/json":
        raise UnsupportedMediaType(
            "The Content-Type must be application/json (curl: -H 'Content-Type: application/json')"
        )
    if (request.content_length or 0) > limits.max_body_bytes:
        raise _too_large(limits)


async def _read(request: web.Request, limits: LimitsConfig) -> bytes:
    """The whole body, within `body_timeout_s` and the time that its size may take."""
    parts: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(limits.body_timeout_s) as deadline:
            while part := await request.content.readany():
                size += len(part)
                if size > limits.max_body_bytes:
                    raise _too_large(limits)
                parts.append(part)
                deadline.reschedule(began + limits.body_timeout_s + size / limits.body_rate)
    except TimeoutError:
        raise RequestTimeout("The body did not arrive in time") from None
    except (web.RequestPayloadError, ConnectionError) as err:
        raise InvalidRequest("The body is broken off") from err
    return b"".join(parts)


def _too_large(limits: LimitsConfig) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {limits.max_body_bytes} bytes")
