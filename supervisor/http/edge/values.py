"""JSON values as people send them. Pure."""

from codecs import BOM_UTF8
from mmap import mmap
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
Text = bytes | bytearray | mmap

_FOUND_FLOAT = "got `float`"
"""In msgspec's message where a whole number was expected."""


def decode(body: Text, kind: type[T]) -> T:
    """A body as `kind`. A whole number may be written as `8.0`, and a byte order mark before all is
    read over. Raises msgspec's errors."""
    body = without_mark(body)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as err:
        if _FOUND_FLOAT not in str(err):
            raise
        return msgspec.convert(_with_whole_numbers(msgspec.json.decode(body)), kind)


def without_mark(body: Text) -> Text:
    """The body behind its byte order mark, if it has one."""
    return body[len(BOM_UTF8) :] if body[: len(BOM_UTF8)] == BOM_UTF8 else body


def converted(value: object, kind: type[T]) -> T:
    """A part of a body, already decoded, as `kind`: as `decode` reads it. Raises msgspec's
    errors."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as err:
        if _FOUND_FLOAT not in str(err):
            raise
        return msgspec.convert(_with_whole_numbers(value), kind)


def _with_whole_numbers(value: Any) -> Any:
    """The value with integers in place of floats that are whole. In JSON they are the same."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_with_whole_numbers(item) for item in value]
        case dict():
            return {key: _with_whole_numbers(item) for key, item in value.items()}
        case _:
            return value
