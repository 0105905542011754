"""Every error that gpufc raises on purpose, one branch for each audience.

    GpufcError
    ├── ConfigError              the operator: one line, exit code 2, before anything starts
    ├── StartError               the operator: one line, exit code 3, it could not start
    ├── LinkError                the front and its worker: the peer broke the protocol
    ├── EngineError              the worker itself
    │   ├── ModelLoadError       this file or configuration cannot be served; not retried
    │   │   └── MemoryShort      not enough memory now; retried, since it may be free again soon
    │   ├── OutOfCells           no KV space for a batch: preempt and go on
    │   └── DecodeFailed         the engine's state is unknown: report and exit
    └── RequestError             the client: carries status, type, code and param
        ├── InvalidRequest               400 invalid_value
        │   ├── ContextLengthExceeded    400 context_length_exceeded
        │   └── InvalidGrammar           400 invalid_grammar
        ├── AuthenticationFailed         401 invalid_api_key
        ├── PermissionDenied             403
        ├── NotFound                     404 not_found
        │   └── ModelNotFound            404 model_not_found
        ├── MethodNotAllowed             405 method_not_allowed
        ├── UnsupportedMediaType         415 unsupported_media_type
        ├── RequestTooLarge              413 request_too_large
        ├── RequestTimeout               408 request_timeout
        ├── RateLimited                  429 rate_limit_exceeded
        ├── Overloaded                   503 overloaded_error
        ├── EngineUnavailable            503 engine_unavailable
        ├── SwapRefused                  409 swap_refused (exit code 5 on a terminal)
        ├── EngineCrashed                500 server_error engine_crashed
        ├── EngineCrashSuspect           500 server_error engine_crash_suspect
        └── InternalError                500 server_error internal_error

A `RequestError` crosses the link as its `code` (see `from_wire`), so that what the
worker refuses reaches the client with the class that it was raised with.
"""

from typing import ClassVar


class GpufcError(Exception):
    """The root. Its text is always fit to be shown to whoever the branch is for."""


class ConfigError(GpufcError):
    """A configuration that cannot be used. The message names the key and where it came from."""


class StartError(GpufcError):
    """Well configured, yet it could not start (port taken, model does not load, …)."""


class LinkError(GpufcError):
    """A message that breaks the protocol: wrong version, wrong token, oversize, undecodable."""


class EngineError(GpufcError):
    """Something inside the engine worker."""


class ModelLoadError(EngineError):
    """The model file or its configuration is at fault. Trying again would fail again."""


class MemoryShort(ModelLoadError):
    """There is not enough memory at this moment: an ended process's may not be free yet."""

    def __init__(
        self,
        message: str,
        *,
        needed_bytes: int = 0,
        available_bytes: int = 0,
        on_device: bool = False,
    ) -> None:
        """`on_device`: it is a device's memory that is short, and not the host's."""
        super().__init__(message)
        self.on_device = on_device
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class OutOfCells(EngineError):
    """`llama_decode` returned 1: no KV space for this batch. Nothing was computed or lost."""


class DecodeFailed(EngineError):
    """`llama_decode` returned something else than 0 or 1. The process must not go on."""


class RequestError(GpufcError):
    """An error that a client gets, as OpenAI's error object.

    `param` names the field at fault, `retry_after_s` becomes the `Retry-After` header.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequest(RequestError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class InvalidGrammar(InvalidRequest):
    code = "invalid_grammar"


class AuthenticationFailed(RequestError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class PermissionDenied(RequestError):
    status = 403
    type = "permission_error"
    code = "permission_denied"


class NotFound(RequestError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(RequestError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeout(RequestError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class RequestTooLarge(RequestError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMediaType(RequestError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class RateLimited(RequestError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Overloaded(RequestError):
    """The queue is full, or the service drains. Always with `retry_after_s`."""

    status = 503
    type = "overloaded_error"
    code = "overloaded"


class EngineUnavailable(RequestError):
    """No worker can serve this now (loading too long, failed for good). With `retry_after_s`."""

    status = 503
    type = "engine_unavailable"
    code = "engine_unavailable"


class SwapRefused(RequestError):
    """A new model did not load or did not pass its trial: the one before serves on."""

    status = 409
    type = "invalid_request_error"
    code = "swap_refused"


class EngineCrashed(RequestError):
    """The engine died with this request in it and the request could not be continued."""

    status = 500
    code = "engine_crashed"


class EngineCrashSuspect(RequestError):
    """This very request killed the engine twice."""

    status = 500
    code = "engine_crash_suspect"


class InternalError(RequestError):
    """A defect of gpufc. Details are in the log, not in the answer."""


def _leaves(cls: type[RequestError]) -> list[type[RequestError]]:
    return [cls, *(leaf for sub in cls.__subclasses__() for leaf in _leaves(sub))]


_BY_CODE: dict[str, type[RequestError]] = {cls.code: cls for cls in _leaves(RequestError)}


def from_wire(code: str, message: str, param: str | None) -> RequestError:
    """The error that the peer raised; an unknown code becomes an `InternalError`."""
    return _BY_CODE.get(code, InternalError)(message, param=param)
