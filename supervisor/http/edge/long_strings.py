"""Decodes a JSON text in steps, the inside of very long strings apart. Pure.

A decoder holds the interpreter until it has read the whole text, in whatever thread it runs: some
20 ms for a string of megabytes with escapes or other characters than ASCII. So the inside of such a
string is cut out, decoded in pieces, and put back into what the rest of the text has become.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from supervisor.http.edge.many_values import decode_in_parts, names_differ
from supervisor.http.edge.values import converted, decode, without_mark

T = TypeVar("T")
Text = Any
"""Bytes that can be searched: `bytes`, `bytearray` or `mmap`."""

Stretch = tuple[int, int]
"""Where the inside of a string begins and ends."""

LEAST_BYTES = 1 << 20
"""Of a stretch that is worth it."""
PIECE_BYTES = 64 * 1024

_ESCAPE_BYTES = 6
_LOOK_BACK = 2 * _ESCAPE_BYTES
"""The length of a pair of surrogates."""
_HIGH_SURROGATES = (b"d8", b"d9", b"da", b"db")


def decode_in_steps(
    text: Text,
    stretches: Sequence[Stretch],
    n_members: int,
    kind: type[T],
    between: Callable[[], object],
) -> T:
    """The text as `decode` reads it; `between` is called between steps. Raises msgspec's errors.

    What the steps refuse is decoded at once: another way to the value refuses more, such as deep
    levels in an unknown field, and names other places in its errors. So is a text with several
    members of one name in an object, which the steps find by `n_members`: of these the last one
    counts, and `decode` refuses a wrong one before it. Where the first error is a float in place of
    a whole number, it looks at the last ones only.
    """
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        whole = _in_steps(text, stretches, between)
        if names_differ(whole, n_members, between):
            between()
            return converted(whole, kind)
    return decode(text, kind)


def _in_steps(text: Text, stretches: Sequence[Stretch], between: Callable[[], object]) -> Any:
    """The value of the text, without a type."""
    mark = secrets.token_hex(16)  # that no client can know
    short = bytearray()
    contents: list[list[str]] = []
    end = 0
    for first, last in stretches:
        content: list[str] = []
        at = start = _cut_from(text, first, first + _LOOK_BACK)
        while (cut := _cut_from(text, at, at + PIECE_BYTES)) < last:
            content.append(_decoded(text[at:cut]))
            between()
            at = cut
        short += text[end:start] + f"{mark}{len(contents)}.".encode()
        contents.append(content)
        end = at
    if stretches:
        short += text[end:]
    whole = decode_in_parts(without_mark(short if stretches else text), between)
    if stretches:
        whole = _filled(whole, mark, contents, between)
    between()
    return whole


def _with_utf8(text: str) -> str:
    """The text, with its UTF-8: Python keeps it once it was asked for, as the message to a worker
    does, and for megabytes of other characters than ASCII that takes long."""
    msgspec.Raw(text)  # asks for it and copies nothing
    return text


def _decoded(piece: bytes) -> str:
    return msgspec.json.decode(b'"%s"' % piece, type=str)


def _cut_from(text: Text, known: int, at: int) -> int:
    """The first place from `at` on that is inside no escape, no pair of surrogates and no
    character. No escape of two bytes stands across `known`."""
    at = min(at, len(text))
    if _n_backslashes(text, known, at) % 2:
        at += 1
    begun = text.rfind(b"\\u", max(known, at - _LOOK_BACK + 1), at)
    if begun >= 0 and _n_backslashes(text, known, begun) % 2 == 0:
        is_high = bytes(text[begun + 2 : begun + 4]).lower() in _HIGH_SURROGATES
        at = max(at, begun + _ESCAPE_BYTES * (2 if is_high else 1))
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at += 1
    return at


def _n_backslashes(text: Text, known: int, at: int) -> int:
    """How many stand right before `at`, from `known` on."""
    before = text[known:at]
    return len(before) - len(before.rstrip(b"\\"))


def _filled(value: Any, mark: str, contents: list[list[str]], between: Callable[[], object]) -> Any:
    """The value with contents in the places of their marks."""
    match value:
        case str() if mark in value:
            head, *others = value.split(mark)
            parts = [head]
            for other in others:
                number, _, tail = other.partition(".")
                parts += (*contents[int(number)], tail)
                contents[int(number)].clear()
            whole = "".join(parts)
            between()
            parts.clear()
            between()
            return _with_utf8(whole)
        case list():
            return [_filled(item, mark, contents, between) for item in value]
        case dict():
            return {
                _filled(key, mark, contents, between): _filled(item, mark, contents, between)
                for key, item in value.items()
            }
        case _:
            return value
