"""The one place that turns errors into HTTP: the client API's error object, status and headers.

A path tells the API, and a header where two APIs share a path. So errors before any handler (no
such route, no key, a body that is too large) have its shape too.
"""

import logging
import math
import re
from collections.abc import Callable

import msgspec
from aiohttp import web

from gpufc.errors import (
    AuthenticationFailed,
    ContextLengthExceeded,
    EngineCrashSuspect,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    NotSupported,
    RequestError,
    RequestTimeout,
    RequestTooLarge,
)
from supervisor.http.edge.context import REQUEST_ID, json_response

logger = logging.getLogger(__name__)

DEFAULT_RETRY_AFTER_S = 1.0
LONGEST_RETRY_AFTER_S = 600.0
RETRYABLE = frozenset({429, 503})
"""Statuses that always have a `Retry-After`."""

_PATH = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*?)(?:\[\.\.\.\])?`$")
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")


def openai_error(error: RequestError, _request_id: str) -> object:
    """OpenAI's error object."""
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def anthropic_error(error: RequestError, request_id: str) -> object:
    """The error object of Anthropic's Messages."""
    kind = ANTHROPIC_KINDS.get(error.status, "api_error")
    too_long = PROMPT_TOO_LONG if isinstance(error, ContextLengthExceeded) else ""
    return {
        "type": "error",
        "error": {"type": kind, "message": too_long + error.message},
        "request_id": request_id,
    }


def ollama_error(error: RequestError, _request_id: str) -> object:
    """Ollama's error object."""
    return {"error": error.message}


PROMPT_TOO_LONG = "prompt is too long: "
"""Anthropic's words. Agents find them in the message, and shorten their conversation."""

ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""Anthropic's types of errors by status. Any other status is an `api_error`."""

ErrorShape = Callable[[RequestError, str], object]

SHAPES: tuple[tuple[str, ErrorShape], ...] = (
    ("/v1/messages", anthropic_error),
    ("/api/hello", anthropic_error),
    ("/api/event_logging/", anthropic_error),
    ("/api/", ollama_error),
)
"""By the beginning of the path. Any other path has OpenAI's shape."""


ANTHROPIC_VERSION = "anthropic-version"
"""A header that all of Anthropic's clients send."""

COMPACTION = "/v1/responses/compact"
"""A route of OpenAI's that does not exist here, though its path is also that of a response."""

SHARED_PATH = "/v1/models"
"""Has routes of OpenAI's API and, for clients with that header, of Anthropic's."""


def shape_for(path: str) -> ErrorShape:
    """The shape of errors at a path."""
    return next((shape for prefix, shape in SHAPES if path.startswith(prefix)), openai_error)


def shape_of(request: web.BaseRequest) -> ErrorShape:
    """The shape of a request's errors."""
    path = request.path
    is_theirs = path.startswith(SHARED_PATH) and ANTHROPIC_VERSION in request.headers
    return anthropic_error if is_theirs else shape_for(path)


def error_response(
    error: RequestError, request_id: str, shape: ErrorShape = openai_error
) -> web.Response:
    """The whole answer to a request that ends with this error."""
    headers = {}
    if error.status in RETRYABLE:
        wait_s = min(error.retry_after_s or DEFAULT_RETRY_AFTER_S, LONGEST_RETRY_AFTER_S)
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    elif is_final(error):
        headers["x-should-retry"] = "false"
    if error.status == AuthenticationFailed.status:
        headers["WWW-Authenticate"] = "Bearer"
    document = shape(error, request_id)
    return json_response(document, status=error.status, headers=headers)


def is_final(error: RequestError) -> bool:
    """Whether the same request would fail again. The SDKs repeat most errors by themselves."""
    refused = 400 <= error.status < 500 and error.status != RequestTimeout.status
    return refused or isinstance(error, EngineCrashSuspect | NotSupported)


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
        case web.HTTPMethodNotAllowed() if request.path == "/":
            # the dashboard's page; a client whose base address lacks its path comes here
            return NotFound(f"There is no route {request.method} /; the API's begin with /v1")
        case web.HTTPMethodNotAllowed() if request.path.rstrip("/") == COMPACTION:
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
