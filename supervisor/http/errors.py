"""The one place that turns errors into HTTP: OpenAI's error object, its status, its headers."""

import logging
import math
import re

import msgspec
from aiohttp import web

from gpufc.errors import (
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestError,
    RequestTooLarge,
)
from supervisor.http.context import REQUEST_ID, json_response

logger = logging.getLogger(__name__)

DEFAULT_RETRY_AFTER_S = 1.0
LONGEST_RETRY_AFTER_S = 600.0
RETRYABLE = frozenset({429, 503})
"""Statuses that always have a `Retry-After`."""

_PATH = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*?)(?:\[\.\.\.\])?`$")
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")


def error_object(error: RequestError) -> dict[str, dict[str, str | None]]:
    """The body of an error, in an answer or in a stream."""
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_response(error: RequestError) -> web.Response:
    """The whole answer to a request that ends with this error."""
    headers = {}
    if error.status in RETRYABLE:
        wait_s = min(error.retry_after_s or DEFAULT_RETRY_AFTER_S, LONGEST_RETRY_AFTER_S)
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    return json_response(error_object(error), status=error.status, headers=headers)


def from_exception(exc: Exception, request: web.Request) -> RequestError:
    """The client's error for any exception of a handler. A defect of ours is logged."""
    match exc:
        case RequestError():
            return exc
        case msgspec.ValidationError():
            return _invalid_field(exc)
        case msgspec.DecodeError():
            return InvalidRequest(f"The body is not valid JSON: {exc}")
        case RecursionError():
            return InvalidRequest("The body is nested too deeply")
        case web.HTTPNotFound():
            return NotFound(f"There is no route {request.method} {request.path}")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(exc.allowed_methods))
            return MethodNotAllowed(f"{request.path} takes {allowed}, not {request.method}")
        case web.HTTPRequestEntityTooLarge():
            return RequestTooLarge("The request is too large")
        case web.HTTPException() if 400 <= exc.status < 500:
            return InvalidRequest(f"The request is not valid: {exc.reason}")
    logger.error(
        "handler_failed request=%s route=%s %s",
        request.get(REQUEST_ID),
        request.method,
        request.rel_url.raw_path,
        exc_info=exc,
    )
    return InternalError("Something went wrong on our side; the log has the request's id")


def _invalid_field(exc: msgspec.ValidationError) -> InvalidRequest:
    message = str(exc)
    found = _PATH.search(message)
    path = found["path"] if found else ""
    missing = _MISSING.search(message)
    if missing:
        path = f"{path}.{missing['field']}" if path else missing["field"]
    reason = message[: found.start()] if found else message
    place = f" ({path})" if path else ""
    return InvalidRequest(f"Invalid value{place}: {reason}", param=path or None)
