"""The digits in a row at the end of a JSON text, outside its strings. Pure.

JSON bounds no number, and a small model goes on with digits to the end of its tokens. So after
`MAX_DIGITS` of them the answer goes on otherwise, if its schema lets it. The token that reaches the
number may bring some more.
"""

from typing import Final

MAX_DIGITS = 40
"""One more than the largest integer of 128 bits has."""

START: Final = 0
_INSIDE, _ESCAPED = -1, -2
_QUOTE, _BACKSLASH, _ZERO, _NINE = b'"\\09'


def after(state: int, piece: bytes) -> int:
    """The state behind some more bytes: the number of digits at the end of the text, or a negative
    number inside a string. That of an empty text is `START`."""
    for byte in piece:
        if state == _ESCAPED:
            state = _INSIDE
        elif state == _INSIDE:
            if byte == _QUOTE:
                state = 0
            elif byte == _BACKSLASH:
                state = _ESCAPED
        elif byte == _QUOTE:
            state = _INSIDE
        else:
            state = state + 1 if _ZERO <= byte <= _NINE else 0
    return state


def begins_with_digit(piece: bytes) -> bool:
    return piece[:1].isdigit()
