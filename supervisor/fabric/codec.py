"""GPUFabric's encoding of messages, both ways, made from the types of their fields. Pure.

It is bincode 2 with little-endian integers of fixed width: https://docs.rs/bincode/2.0.1 (spec). A
frame is a length, u32 big-endian, and that many bytes: the generation and the variant, each u32,
then the fields. A decoder ignores bytes after the last field, as the original does.
"""

import struct
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from msgspec import inspect

from supervisor.fabric.messages import COMMANDS, Command

MAX_FRAME_BYTES = 10 * 1024 * 1024
HEADER = struct.Struct(">I")
"""The length before each frame's bytes."""

_TAG = struct.Struct("<I")
_COUNT = struct.Struct("<Q")
_F32 = struct.Struct("<f")


class ProtocolError(ValueError):
    """Bytes that are no message, or a message that cannot be sent."""


Encode = Callable[[Any, bytearray], None]
Decode = Callable[[memoryview, int], tuple[Any, int]]
"""Reads a value at an offset; returns it with the offset behind it."""


class Coding(NamedTuple):
    """How one type is written and read. `least` is its smallest size in bytes."""

    encode: Encode
    decode: Decode
    least: int


def encode_frame(message: Command) -> bytes:
    """A message with its length in front. Raises `ProtocolError`."""
    generation, variant, coding = _BY_TYPE[type(message)]
    out = bytearray(HEADER.size)
    out += _TAG.pack(generation) + _TAG.pack(variant)
    try:
        coding.encode(message, out)
    except (OverflowError, struct.error, TypeError, AttributeError, UnicodeEncodeError) as err:
        raise ProtocolError(f"{type(message).__name__} cannot be sent: {err}") from err
    n_bytes = len(out) - HEADER.size
    if n_bytes > MAX_FRAME_BYTES:
        raise ProtocolError(f"a frame of {n_bytes} bytes, of at most {MAX_FRAME_BYTES}")
    HEADER.pack_into(out, 0, n_bytes)
    return bytes(out)


def frame_size(header: bytes) -> int:
    """The bytes that follow a frame's header. Raises `ProtocolError`."""
    (n_bytes,) = HEADER.unpack(header)
    if n_bytes > MAX_FRAME_BYTES:
        raise ProtocolError(f"a frame of {n_bytes} bytes, of at most {MAX_FRAME_BYTES}")
    return int(n_bytes)


def decode_frame(payload: bytes) -> Command:
    """The message in a frame's bytes, without the header. Raises `ProtocolError`."""
    view = memoryview(payload)
    generation, at = _read(_TAG, view, 0)
    index, at = _read(_TAG, view, at)
    if generation >= len(COMMANDS) or index >= len(COMMANDS[generation]):
        raise ProtocolError(f"there is no variant {generation}.{index}")
    message, _ = _BY_TYPE[COMMANDS[generation][index]].coding.decode(view, at)
    found: Command = message
    return found


# by type


def _coding(kind: inspect.Type) -> Coding:
    """The coding of a field's type."""
    match kind:
        case inspect.BoolType():
            return Coding(lambda value, out: out.append(value), _bool, 1)
        case inspect.Metadata(extra=extra) if extra and "bytes" in extra:
            return _integer(extra["bytes"], signed=bool(extra.get("signed")))
        case inspect.FloatType():
            return Coding(lambda value, out: out.extend(_F32.pack(value)), _f32, 4)
        case inspect.StrType():
            return Coding(_write_text, _text, _COUNT.size)
        case inspect.BytesType(min_length=int(size), max_length=most) if size == most:
            return _array(size)
        case inspect.BytesType():
            return Coding(_write_bytes, _bytes, _COUNT.size)
        case inspect.EnumType(cls=cls):
            return _enum(cls)
        case inspect.UnionType(types=(one, inspect.NoneType())):
            return _optional(_coding(one))
        case inspect.ListType(item_type=item):
            return _list(_coding(item))
        case inspect.StructType(cls=cls, fields=fields):
            return _struct(cls, [(field.encode_name, _coding(field.type)) for field in fields])
        case _:
            raise TypeError(f"{kind} has no coding")


def _integer(n_bytes: int, *, signed: bool) -> Coding:
    def encode(value: int, out: bytearray) -> None:
        out += value.to_bytes(n_bytes, "little", signed=signed)

    def decode(view: memoryview, at: int) -> tuple[int, int]:
        raw, end = _take(view, at, n_bytes)
        return int.from_bytes(raw, "little", signed=signed), end

    return Coding(encode, decode, n_bytes)


def _array(size: int) -> Coding:
    def encode(value: bytes, out: bytearray) -> None:
        if len(value) != size:
            raise ProtocolError(f"{len(value)} bytes where {size} belong")
        out += value

    def decode(view: memoryview, at: int) -> tuple[bytes, int]:
        raw, end = _take(view, at, size)
        return bytes(raw), end

    return Coding(encode, decode, size)


def _enum(cls: type[Enum]) -> Coding:
    def decode(view: memoryview, at: int) -> tuple[Enum, int]:
        number, end = _read(_TAG, view, at)
        if number >= len(cls):
            raise ProtocolError(f"there is no {cls.__name__} {number}")
        return cls(number), end

    return Coding(lambda value, out: out.extend(_TAG.pack(value)), decode, _TAG.size)


def _optional(inner: Coding) -> Coding:
    def encode(value: Any, out: bytearray) -> None:
        out.append(value is not None)
        if value is not None:
            inner.encode(value, out)

    def decode(view: memoryview, at: int) -> tuple[Any, int]:
        has_value, at = _bool(view, at)
        return inner.decode(view, at) if has_value else (None, at)

    return Coding(encode, decode, 1)


def _list(item: Coding) -> Coding:
    def encode(value: list[Any], out: bytearray) -> None:
        out += _COUNT.pack(len(value))
        for one in value:
            item.encode(one, out)

    def decode(view: memoryview, at: int) -> tuple[list[Any], int]:
        count, at = _read(_COUNT, view, at)
        if count * item.least > len(view) - at:  # before any memory is taken for them
            raise ProtocolError(f"{count} entries in {len(view) - at} bytes")
        values = []
        for _ in range(count):
            value, at = item.decode(view, at)
            values.append(value)
        return values, at

    return Coding(encode, decode, _COUNT.size)


def _struct(cls: type, fields: list[tuple[str, Coding]]) -> Coding:
    def encode(value: Any, out: bytearray) -> None:
        for name, coding in fields:
            coding.encode(getattr(value, name), out)

    def decode(view: memoryview, at: int) -> tuple[Any, int]:
        values = []
        for _, coding in fields:
            value, at = coding.decode(view, at)
            values.append(value)
        return cls(*values), at

    return Coding(encode, decode, sum(coding.least for _, coding in fields))


# scalars


def _take(view: memoryview, at: int, size: int) -> tuple[memoryview, int]:
    end = at + size
    if end > len(view):
        raise ProtocolError(f"the frame ends {end - len(view)} bytes early")
    return view[at:end], end


def _read(form: struct.Struct, view: memoryview, at: int) -> tuple[int, int]:
    raw, end = _take(view, at, form.size)
    return form.unpack(raw)[0], end


def _bool(view: memoryview, at: int) -> tuple[bool, int]:
    raw, end = _take(view, at, 1)
    if raw[0] > 1:
        raise ProtocolError(f"{raw[0]} is neither true nor false")
    return raw[0] == 1, end


def _f32(view: memoryview, at: int) -> tuple[float, int]:
    raw, end = _take(view, at, 4)
    return float(_F32.unpack(raw)[0]), end


def _bytes(view: memoryview, at: int) -> tuple[bytes, int]:
    size, at = _read(_COUNT, view, at)
    raw, end = _take(view, at, size)
    return bytes(raw), end


def _write_bytes(value: bytes, out: bytearray) -> None:
    out += _COUNT.pack(len(value)) + value


def _text(view: memoryview, at: int) -> tuple[str, int]:
    raw, end = _bytes(view, at)
    try:
        return raw.decode(), end
    except UnicodeDecodeError as err:
        raise ProtocolError(f"a text is not UTF-8: {err.reason}") from err


def _write_text(value: str, out: bytearray) -> None:
    _write_bytes(value.encode(), out)


class _Variant(NamedTuple):
    generation: int
    variant: int
    coding: Coding


_BY_TYPE: dict[type[Command], _Variant] = {
    command: _Variant(generation, index, _coding(inspect.type_info(command)))
    for generation, commands in enumerate(COMMANDS)
    for index, command in enumerate(commands)
}
