"""Every error that gpufc raises on purpose, one branch for each audience.

    GpufcError
    ├── ConfigError              the operator: one line, exit code 2, before anything starts
    ├── StartError               the operator: one line, exit code 3, it could not start
    ├── LinkError                the front and its worker: the peer broke the protocol
    ├── EngineError              the worker itself
    │   ├── ModelLoadError       the file or configuration cannot be served; not retried
    │   │   └── MemoryShort      not enough memory now; retried, since memory may become free
    │   ├── OutOfCells           no KV cells for a batch: preempt and go on
    │   └── DecodeFailed         the engine's state is unknown: report and exit
    └── RequestError                     the client: HTTP status, OpenAI's type, code
        ├── InvalidRequest               400 invalid_request_error invalid_value
        │   ├── ContextLengthExceeded    400 invalid_request_error context_length_exceeded
        │   ├── InvalidGrammar           400 invalid_request_error invalid_grammar
        │   └── PreviousResponseNotFound 400 invalid_request_error previous_response_not_found
        ├── AuthenticationFailed         401 authentication_error invalid_api_key
        ├── PermissionDenied             403 permission_error permission_denied
        ├── NotFound                     404 invalid_request_error not_found
        │   └── ModelNotFound            404 invalid_request_error model_not_found
        ├── MethodNotAllowed             405 invalid_request_error method_not_allowed
        ├── RequestTimeout               408 invalid_request_error request_timeout
        ├── RequestTooLarge              413 invalid_request_error request_too_large
        ├── UnsupportedMediaType         415 invalid_request_error unsupported_media_type
        ├── ExpectationFailed            417 invalid_request_error expectation_failed
        ├── RateLimited                  429 rate_limit_error rate_limit_exceeded
        ├── Overloaded                   503 overloaded_error overloaded
        ├── EngineUnavailable            503 engine_unavailable engine_unavailable
        ├── SwapRefused                  409 invalid_request_error swap_refused
        ├── InvalidConfiguration         400 invalid_request_error invalid_configuration
        ├── ReloadRefused                409 invalid_request_error reload_refused
        ├── NotSupported                 501 not_supported_error not_supported
        ├── EngineCrashed                500 server_error engine_crashed
        ├── EngineCrashSuspect           500 server_error engine_crash_suspect
        └── InternalError                500 server_error internal_error

A `RequestError` crosses the link as its `code`; `from_wire` makes the same class of it again. A
`SwapRefused` on a terminal is exit code 5.
"""

import copy
from typing import ClassVar, Self


class GpufcError(Exception):
    """The root. Its text may be shown to the audience of its branch."""


class ConfigError(GpufcError):
    """A configuration that cannot be used. The message names the key and its source."""


class StartError(GpufcError):
    """A valid configuration that could not start: port taken, model does not load, …"""


class LinkError(GpufcError):
    """A message that breaks the protocol: wrong version or token, too large, undecodable."""


class EngineError(GpufcError):
    """A failure inside the engine worker."""


class ModelLoadError(EngineError):
    """The model file or its configuration is at fault; another attempt would fail too."""


class MemoryShort(ModelLoadError):
    """There is not enough memory now: that of an ended process may not be free yet.

    The bytes are 0 where they are unknown. `on_device` says that a device's memory is short.
    """

    def __init__(
        self,
        message: str,
        *,
        needed_bytes: int = 0,
        available_bytes: int = 0,
        on_device: bool = False,
    ) -> None:
        super().__init__(message)
        self.on_device = on_device
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class OutOfCells(EngineError):
    """`llama_decode` returned 1: no KV space for this batch. Nothing was computed or lost."""


class DecodeFailed(EngineError):
    """`llama_decode` returned neither 0 nor 1. The process must not go on."""


class RequestError(GpufcError):
    """An error that a client gets, as OpenAI's error object; `kind` is that object's `type`.

    `param` names the field at fault, `retry_after_s` becomes the `Retry-After` header.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def again(self) -> Self:
        """An equal error, to be raised in place of one that is kept.

        A raised error holds the frames that it passed through. Kept by what they hold, it would
        keep a request and its body until the next full collection.
        """
        return copy.copy(self)


class InvalidRequest(RequestError):
    status = 400
    kind = "invalid_request_error"
    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class InvalidGrammar(InvalidRequest):
    code = "invalid_grammar"


class PreviousResponseNotFound(InvalidRequest):
    """The response that a conversation goes on from is not remembered."""

    code = "previous_response_not_found"


class AuthenticationFailed(RequestError):
    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"


class PermissionDenied(RequestError):
    status = 403
    kind = "permission_error"
    code = "permission_denied"


class NotFound(RequestError):
    status = 404
    kind = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(RequestError):
    status = 405
    kind = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeout(RequestError):
    status = 408
    kind = "invalid_request_error"
    code = "request_timeout"


class RequestTooLarge(RequestError):
    status = 413
    kind = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMediaType(RequestError):
    status = 415
    kind = "invalid_request_error"
    code = "unsupported_media_type"


class ExpectationFailed(RequestError):
    status = 417
    kind = "invalid_request_error"
    code = "expectation_failed"


class RateLimited(RequestError):
    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"


class Overloaded(RequestError):
    """The queue is full, or the front drains. Always with `retry_after_s`."""

    status = 503
    kind = "overloaded_error"
    code = "overloaded"


class EngineUnavailable(RequestError):
    """No worker can serve now: it loads for too long, or failed for good. With `retry_after_s`."""

    status = 503
    kind = "engine_unavailable"
    code = "engine_unavailable"


class SwapRefused(RequestError):
    """A new model did not load or failed its trial: the model before it goes on serving."""

    status = 409
    kind = "invalid_request_error"
    code = "swap_refused"


class InvalidConfiguration(RequestError):
    """A reload has found a fault in the configuration: the one before stays in force."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_configuration"


class ReloadRefused(RequestError):
    """A reload cannot bring a change about: the configuration before stays in force."""

    status = 409
    kind = "invalid_request_error"
    code = "reload_refused"


class NotSupported(RequestError):
    """A route of a client API for work that this service does not do."""

    status = 501
    kind = "not_supported_error"
    code = "not_supported"


class EngineCrashed(RequestError):
    """The engine died with this request in it and the request could not be continued."""

    status = 500
    code = "engine_crashed"


class EngineCrashSuspect(RequestError):
    """This request killed the engine, alone in its batch."""

    status = 500
    code = "engine_crash_suspect"


class InternalError(RequestError):
    """A defect of gpufc. The log has the details, the answer does not."""


def _leaves(cls: type[RequestError]) -> list[type[RequestError]]:
    return [cls, *(leaf for sub in cls.__subclasses__() for leaf in _leaves(sub))]


_BY_CODE: dict[str, type[RequestError]] = {cls.code: cls for cls in _leaves(RequestError)}


def from_wire(code: str, message: str, param: str | None) -> RequestError:
    """The error that the peer raised. An unknown code becomes an `InternalError`."""
    return _BY_CODE.get(code, InternalError)(message, param=param)
