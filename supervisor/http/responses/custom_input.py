"""The text that a model gives a custom tool, read out of a function call's arguments. Pure.

A custom tool takes free text. The model is offered a function with one parameter, `input`. So its
arguments are `{"input": "the text"}`, and the text is wanted while it comes.
"""

import json
import re

_BEGINNING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_COMPACT = '{"input":"'
MAX_UNDECIDED = 256
"""The longest beginning, in characters: white space may go on for ever."""

_STOP = re.compile(r'["\\]')
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|u[0-9a-fA-F]{4}|[^u])")
_LONGEST_ESCAPE = 12
"""Of a surrogate pair."""


class CustomInput:
    """One call's arguments as text. Arguments of another form are the text themselves.

    The pieces that `feed` and `end` return join to the same text however the arguments were cut.
    """

    def __init__(self) -> None:
        self._held = ""
        self._is_string: bool | None = None
        self._is_closed = False

    def feed(self, piece: str) -> str:
        """The further text that a piece of the arguments brings; it may be empty."""
        self._held += piece
        if self._is_string is None:
            self._decide()
        if self._is_string is None or self._is_closed:
            return ""
        if self._is_string:
            return self._unescaped(at_end=False)
        return self._all_held()

    def end(self) -> str:
        """The rest of the text, once all arguments have come."""
        if self._is_closed:
            return ""
        return self._unescaped(at_end=True) if self._is_string else self._all_held()

    def _decide(self) -> None:
        found = _BEGINNING.match(self._held)
        if found and found.end() <= MAX_UNDECIDED:
            self._is_string, self._held = True, self._held[found.end() :]
        elif (
            not _COMPACT.startswith("".join(self._held.split())) or len(self._held) > MAX_UNDECIDED
        ):
            self._is_string = False

    def _all_held(self) -> str:
        text, self._held = self._held, ""
        return text

    def _unescaped(self, *, at_end: bool) -> str:
        """The text up to the closing quote. What may be half an escape is held back."""
        found: list[str] = []
        text, at = self._held, 0
        while at < len(text):
            found_stop = _STOP.search(text, at)
            stop = found_stop.start() if found_stop else len(text)
            found.append(text[at:stop])
            at = stop
            if at == len(text):
                break
            if text[at] == '"':
                self._is_closed, at = True, len(text)
                break
            if not at_end and len(text) - at < _LONGEST_ESCAPE and _may_go_on(text[at:]):
                break
            escape = _ESCAPE.match(text, at)
            # one that is broken off, or not JSON's, stands for itself
            found.append("\\" if escape is None else _meant(escape[0]))
            at = at + 1 if escape is None else escape.end()
        self._held = text[at:]
        return "".join(found)


def _may_go_on(rest: str) -> bool:
    """Whether more text could change the escape that `rest` begins with."""
    if len(rest) < 2:
        return True
    if rest[1] != "u":
        return False
    return len(rest) < 6 or rest[2:3] in ("d", "D")


def _meant(escape: str) -> str:
    try:
        text: str = json.loads(f'"{escape}"')
    except ValueError:
        return escape
    # half of a pair cannot be written as UTF-8
    return text.encode("utf-8", "replace").decode()
