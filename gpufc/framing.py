"""Messages over pipes and stream sockets: each is preceded by its length, four bytes big-endian."""

import struct
from collections.abc import Callable, Iterator

from gpufc.errors import LinkError

HEADER_BYTES = 4
_HEADER = struct.Struct("!I")


def frame(message: bytes) -> bytes:
    """The message with its length before it."""
    return _HEADER.pack(len(message)) + message


def read_frame(read: Callable[[int], bytes], limit: int) -> bytes | None:
    """One message. `read(n)` returns up to n bytes, none at the end of the stream.

    None if the stream ends before the message does. Raises `LinkError` over `limit` bytes.
    """
    header = _read_exactly(read, HEADER_BYTES)
    return None if header is None else _read_exactly(read, _length(header, limit))


def take_frames(buffer: bytearray, limit: int) -> Iterator[bytes]:
    """Remove the complete messages from the start of a buffer, one by one.

    Raises `LinkError` for a length over `limit` bytes.
    """
    start = 0
    try:
        while len(buffer) - start >= HEADER_BYTES:
            end = start + HEADER_BYTES + _length(buffer[start : start + HEADER_BYTES], limit)
            if len(buffer) < end:
                break
            message = bytes(buffer[start + HEADER_BYTES : end])
            start = end
            yield message
    finally:
        del buffer[:start]


def _length(header: bytes | bytearray, limit: int) -> int:
    (length,) = _HEADER.unpack(header)
    if length > limit:
        raise LinkError(f"a message of {length} bytes is over the limit of {limit}")
    return int(length)


def _read_exactly(read: Callable[[int], bytes], length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        part = read(length - len(data))
        if not part:
            return None
        data += part
    return bytes(data)
