"""Reading steps for literals that are no JSON: Python's, and Gemma's with its own quotes.

They are written as JSON while they are read.
"""

import re
import sys
from json.encoder import encode_basestring

from supervisor.answers.parsers.tape import Malformed, Markers, Steps, Tape
from supervisor.answers.parsers.typed import Arguments, as_json

QUOTES = ('<|"|>', '"', "'")
ENDS = {
    '<|"|>': Markers('<|"|>'),
    '"': Markers('"', "\\"),
    "'": Markers("'", "\\"),
}
WORD = re.compile(r"[^,:=(){}\[\]\"'<\n]*")
KEY = re.compile(r"[^:{}\[\],<\"'\n]*")
ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}
ESCAPED |= {char: char for char in "\\'\"/"}
HEX = {"x": 2, "u": 4, "U": 8}
HIGH, LOW = range(0xD800, 0xDC00), range(0xDC00, 0xE000)
UNKNOWN = "\ufffd"
CLOSES = {"{": "}", "[": "]", "(": ")"}
DEEPEST = 100


def value(tape: Tape, arguments: Arguments, depth: int = 0) -> Steps[None]:
    """Read one literal into the open call's arguments."""
    if depth > DEEPEST:
        raise Malformed
    quote = yield from tape.accept(*QUOTES, *CLOSES)
    if quote in CLOSES:
        yield from _nested(tape, arguments, quote, depth)
    elif quote:
        arguments.raw('"')
        yield from _string(tape, arguments, quote)
        arguments.raw('"')
    else:
        bare = yield from tape.something((yield from tape.word(WORD)).strip())
        if not (yield from tape.peek()):
            yield from tape.more()
        arguments.raw(as_json(bare, None))


def _nested(tape: Tape, arguments: Arguments, bracket: str, depth: int) -> Steps[None]:
    """Read the members of an object or a list whose first bracket has been read."""
    close, is_object = CLOSES[bracket], bracket == "{"
    arguments.raw("{" if is_object else "[")
    yield from tape.space()
    end = yield from tape.accept(close)
    first = True
    while not end:
        if not first:
            arguments.raw(", ")
        first = False
        if is_object:
            yield from _key(tape, arguments)
        yield from value(tape, arguments, depth + 1)
        yield from tape.space()
        end = yield from tape.expect(",", close)
        if end == ",":
            yield from tape.space()
            end = yield from tape.accept(close)
    arguments.raw("}" if is_object else "]")


def _key(tape: Tape, arguments: Arguments) -> Steps[None]:
    key = yield from key_text(tape)
    arguments.raw(encode_basestring(key) + ": ")


def key_text(tape: Tape) -> Steps[str]:
    """Read a member's key, quoted or not, and the colon after it."""
    quote = yield from tape.accept(*QUOTES)
    if quote:
        pieces: list[str] = []
        yield from tape.before(ENDS[quote], pieces.append)
        key = "".join(pieces)
    else:
        key = (yield from tape.word(KEY)).strip()
    yield from tape.space()
    yield from tape.expect(":")
    yield from tape.space()
    return key


def _string(tape: Tape, arguments: Arguments, quote: str) -> Steps[None]:
    """Read the rest of a string, past its last quote."""
    while (yield from tape.before(ENDS[quote], arguments.text)) == "\\":
        if not (yield from tape.peek()):
            yield from tape.more()
        char = tape.text[tape.at]
        tape.at += 1
        if char in HEX:
            arguments.text((yield from _char(tape, HEX[char])))
        else:
            arguments.text(ESCAPED.get(char, "\\" + char))


def _char(tape: Tape, n_digits: int) -> Steps[str]:
    """Read an escape's digits, and those of a second escape where two make one character."""
    code = yield from _code(tape, n_digits)
    if code in HIGH and (yield from tape.accept("\\u")):
        low = yield from _code(tape, 4)
        code = 0x10000 + ((code - HIGH.start) << 10) + low - LOW.start if low in LOW else code
    return UNKNOWN if code in HIGH or code in LOW or code > sys.maxunicode else chr(code)


def _code(tape: Tape, n_digits: int) -> Steps[int]:
    digits = ""
    while len(digits) < n_digits:
        if not (yield from tape.peek()):
            yield from tape.more()
        digits += tape.text[tape.at]
        tape.at += 1
    try:
        return int(digits, 16)
    except ValueError:
        raise Malformed from None
