"""Reading steps for JSON: a value verbatim, an object's members, a call as an object."""

import json
import re
from collections.abc import Callable, Container

from supervisor.answers.parsers.answer import Answer, attempt, closing
from supervisor.answers.parsers.tape import Malformed, Steps, Take, Tape

BETWEEN = re.compile(r"[\s,:\w.+-]*+")
"""What stands between an object's strings and brackets."""
STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f]")
SURROGATE = re.compile("[\ud800-\udfff]")
ATOM = re.compile(r"[\w.+-]*+")


def value(tape: Tape, take: Take) -> Steps[None]:
    """Read one JSON value and take its text as it is written, line breaks in strings escaped."""
    first = yield from tape.peek()
    if first not in ('"', "{", "["):
        atom = yield from tape.word(ATOM)
        if not _is_json(atom):
            yield from tape.something("")
        take(atom)
        return
    read: list[str] = []
    try:
        yield from _nested(tape, read, take)
    finally:
        _flush(read, take)


def _nested(tape: Tape, read: list[str], take: Take) -> Steps[None]:
    opened: list[str] = []
    in_string = False
    while True:
        match = (STRING if in_string else BETWEEN).match(tape.text, tape.at)
        if match is not None and match.end() > tape.at:
            read.append(escaped(match.group()) if in_string else match.group())
            tape.at = match.end()
        if tape.at >= len(tape.text) or (in_string and tape.text[tape.at] == "\\"):
            _flush(read, take)
            yield from tape.more()
            continue
        char = tape.text[tape.at]
        if char == '"':
            in_string = not in_string
        elif char in "{[":
            opened.append("}" if char == "{" else "]")
        elif not opened or char != opened.pop():
            raise Malformed
        read.append(char)
        tape.at += 1
        if not opened and not in_string:
            return


def escaped(text: str) -> str:
    """The inside of a JSON string with its control characters escaped."""
    if CONTROL.search(text) is None:
        return text
    return CONTROL.sub(lambda char: json.dumps(char.group())[1:-1], text)


def _flush(read: list[str], take: Take) -> None:
    if read:
        text = "".join(read)
        read.clear()
        take(text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def whole(tape: Tape) -> Steps[object]:
    """Read one JSON value and return it."""
    read: list[str] = []
    yield from value(tape, read.append)
    try:
        found: object = json.loads("".join(read))
    except (ValueError, RecursionError):
        raise Malformed from None
    return found


def members(tape: Tape, member: Callable[[str], Steps[None]]) -> Steps[None]:
    """Read an object: `member` reads the value of each key."""
    yield from tape.expect("{")
    yield from tape.space()
    if (yield from tape.accept("}")):
        return
    while True:
        key = yield from whole(tape)
        if not isinstance(key, str):
            raise Malformed
        yield from tape.space()
        yield from tape.expect(":")
        yield from tape.space()
        yield from member(key)
        yield from tape.space()
        if (yield from tape.expect(",", "}")) == "}":
            return
        yield from tape.space()


BARE_CALL = r"\s*\[?\s*\{\s*\"(name\"|function\"|type\"\s*:\s*\"function)"
"""A pattern for the beginning of a call without a marker."""

NAMES = ("name", "function")
ARGUMENTS = ("arguments", "parameters", "args")
BESIDE = ("type", "id", "index")


def call(tape: Tape, answer: Answer, names: Container[str] = ()) -> Steps[None]:
    """Read the open call: an object with the members `name` and `arguments`, in any order.

    With `names`, only these are names of calls. An object that begins with other members is none.
    """
    found: dict[str, str] = {}

    def member(key: str) -> Steps[None]:
        if key in NAMES:
            found["name"] = _text((yield from whole(tape)))
            if names and found["name"] not in names:
                raise Malformed
            answer.name(found["name"], found.get("id"))
        elif key in ARGUMENTS:
            yield from arguments(tape, answer)
        elif key == "id":
            found["id"] = _text(str((yield from whole(tape))))
            if "name" in found:
                answer.name(found["name"], found["id"])
        elif "name" in found or key in BESIDE:
            yield from value(tape, _nothing)
        else:
            raise Malformed

    yield from members(tape, member)


def calls(tape: Tape, answer: Answer, names: Container[str] = ()) -> Steps[bool]:
    """Read the open call, or a list of calls of which it is the first. What is none is text, and
    then the result is False."""
    if not (yield from tape.accept("[")):
        return (yield from attempt(call(tape, answer, names), answer))
    yield from tape.space()
    while (yield from attempt(call(tape, answer, names), answer)):
        separator = yield from closing(tape, answer, ",", "]")
        if separator != ",":
            return True
        answer.open(separator)
        yield from tape.space()
    return False


def arguments(tape: Tape, answer: Answer) -> Steps[None]:
    """Read the open call's arguments: an object, or a string that holds one, or null for none."""
    match (yield from tape.peek()):
        case "{":
            yield from value(tape, answer.argue)
        case '"':
            text = yield from whole(tape)
            answer.argue(_text(text) if text else "")
        case _:
            if (yield from whole(tape)) is not None:
                raise Malformed


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or SURROGATE.search(value):
        raise Malformed
    return value


def _nothing(_text: str) -> None:
    pass
