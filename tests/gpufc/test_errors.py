"""What the worker refuses reaches the client with the class that it was raised with."""

import re
from typing import TypeVar

import pytest

from gpufc import errors

T = TypeVar("T", bound=errors.GpufcError)


@pytest.mark.parametrize(
    ("raised", "status", "kind", "code"),
    [
        (errors.InvalidRequest, 400, "invalid_request_error", "invalid_value"),
        (errors.ContextLengthExceeded, 400, "invalid_request_error", "context_length_exceeded"),
        (errors.InvalidGrammar, 400, "invalid_request_error", "invalid_grammar"),
        (errors.AuthenticationFailed, 401, "authentication_error", "invalid_api_key"),
        (errors.ModelNotFound, 404, "invalid_request_error", "model_not_found"),
        (errors.NotFound, 404, "invalid_request_error", "not_found"),
        (errors.RequestTooLarge, 413, "invalid_request_error", "request_too_large"),
        (errors.RateLimited, 429, "rate_limit_error", "rate_limit_exceeded"),
        (errors.EngineCrashSuspect, 500, "server_error", "engine_crash_suspect"),
    ],
)
def test_an_error_crosses_the_link_with_its_class(
    raised: type[errors.RequestError], status: int, kind: str, code: str
) -> None:
    error = errors.from_wire(raised.code, "why", "field")
    assert type(error) is raised
    assert (error.status, error.kind, error.code) == (status, kind, code)
    assert (error.message, error.param) == ("why", "field")


def test_codes_are_unique() -> None:
    classes = [cls for cls in errors._leaves(errors.RequestError) if cls is not errors.RequestError]
    assert len({cls.code for cls in classes}) == len(classes)


def test_an_unknown_code_is_an_internal_error() -> None:
    assert type(errors.from_wire("made up", "why", None)) is errors.InternalError


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    documented = dict(re.findall(r"── (\w+) +(.+)", errors.__doc__ or ""))
    assert set(documented) == {cls.__name__ for cls in subclasses(errors.GpufcError)}
    for cls in subclasses(errors.RequestError):
        assert documented[cls.__name__] == f"{cls.status} {cls.kind} {cls.code}"


def subclasses(cls: type[T]) -> list[type[T]]:
    """Those of the module itself, at any depth."""
    direct = [sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__]
    return [found for sub in direct for found in (sub, *subclasses(sub))]
