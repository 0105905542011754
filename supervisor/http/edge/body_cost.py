"""What a JSON text costs to decode, found without decoding it. Pure.

A decoder holds the interpreter until it has read the whole text, in whatever thread it runs. Its
time grows with the number of values more than with the number of bytes. So large texts are weighed
first, in pieces, and a text above `MOST` is refused unread.
"""

import re
from collections.abc import Iterator
from mmap import mmap

from msgspec import Struct

PIECE_BYTES = 64 * 1024
MEMBER = 12
"""The cost of an object's member, in array elements. Measured with msgspec on typed bodies."""
CONTAINER = 12
"""The cost of an array or object itself."""
STRING = 4
"""The cost of a string itself, keys included."""
ESCAPES = 16
"""So many escapes in strings cost as much as one array element."""
MOST = 500_000
"""Largest cost of a body. An array element takes about 25 ns."""
MUCH = 100_000
"""Cost from which a body is decoded in steps."""
VALUE_BYTES = 40
"""Roughly the memory of one decoded element: a slot and a small object."""

_CONTINUING = bytes(range(0x80, 0xC0))
"""The bytes of UTF-8 that begin no character."""
_WIDTHS = ((4, bytes(range(0xF0))), (2, bytes(range(0xC4))), (1, bytes(range(0x80))))
"""The bytes of a character in memory, with the bytes of UTF-8 that begin no wider one."""
_HIGH_SURROGATES = (b"\\ud8", b"\\ud9", b"\\uda", b"\\udb")
_ESCAPE_BYTES = 6
_ESCAPES = re.compile(rb"\\.", re.DOTALL)
_STRUCTURE = b",:[{"
_REST = bytes(set(range(256)) - set(_STRUCTURE))


class Cost(Struct, frozen=True):
    """The values of a text, in array elements, and its characters, up to the `end` of a piece;
    `is_inside` of a string if the whole piece is."""

    elements: int = 0
    end: int = 0
    is_inside: bool = False
    n_chars: int = 0
    width: int = 0
    """Of the widest character, in bytes; 0 if all are plain ASCII."""
    n_members: int = 0
    """Of all objects; of several with one name each counts."""

    @property
    def n_bytes(self) -> int:
        """An estimate of their memory once decoded, without strings of ASCII. Another string is
        kept in characters of one width, and as UTF-8, which a message to a worker asks for."""
        return VALUE_BYTES * self.elements + self.width * self.n_chars

    @property
    def is_much(self) -> bool:
        return self.elements > MUCH

    @property
    def is_too_much(self) -> bool:
        return self.elements > MOST


def weigh(text: bytes | bytearray | mmap) -> Iterator[Cost]:
    """The cost so far, after each piece. Valid JSON is weighed right; of other texts only the time
    is bounded."""
    elements = n_escapes = n_chars = width = n_members = 0
    in_string = False
    start = 0
    while start < len(text):
        end = _end_of_piece(text, start)
        piece = text[start:end]
        n_chars += _n_chars(piece)
        width = max(width, _width(piece))
        if b"\\" in piece:
            piece, n_more = _ESCAPES.subn(b"", piece)
            n_escapes += n_more
        segments = piece.split(b'"')
        is_inside = in_string and len(segments) == 1
        outside = b"".join(segments[in_string::2])
        elements += STRING * ((len(segments) - in_string) // 2)  # quotes that open one
        in_string ^= len(segments) % 2 == 0
        structure = outside.translate(None, _REST)
        members, containers = structure.count(b":"), structure.count(b"[") + structure.count(b"{")
        elements += structure.count(b",") + MEMBER * members + CONTAINER * containers
        n_members += members
        yield Cost(elements + n_escapes // ESCAPES, end, is_inside, n_chars, width, n_members)
        start = end


def _n_chars(piece: bytes | bytearray) -> int:
    """Half of a surrogate pair counts as one."""
    n_continuing = 0 if piece.isascii() else len(piece) - len(piece.translate(None, _CONTINUING))
    return len(piece) - n_continuing - (_ESCAPE_BYTES - 1) * piece.count(b"\\u")


def _width(piece: bytes | bytearray) -> int:
    """That of the widest character; 0 if all are ASCII and none is written as its number."""
    own = escaped = 0
    if not piece.isascii():
        own = next((width for width, less in _WIDTHS if piece.translate(None, less)), 0)
    if n_escaped := piece.count(b"\\u"):
        small = piece.lower()
        escaped = 1 if piece.count(b"\\u00") == n_escaped else 2
        escaped = 4 if any(one in small for one in _HIGH_SURROGATES) else escaped
    return max(own, escaped)


def _end_of_piece(text: bytes | bytearray | mmap, start: int) -> int:
    """The end of the piece that starts there. It splits no escape."""
    end = min(len(text), start + PIECE_BYTES)
    n_backslashes = 0
    while end - n_backslashes > start and text[end - n_backslashes - 1] == 0x5C:
        n_backslashes += 1
    return min(len(text), end + n_backslashes % 2)
