"""Reading steps for values between tags, where the value may contain tags as text.

A closing tag closes only if a tag that may follow it comes next, or the end of the text.
"""

from collections.abc import Mapping, Sequence

from supervisor.answers.parsers.tape import Markers, Steps, Take, Tape
from supervisor.answers.parsers.typed import Arguments, as_json, only_string


class Closers:
    """Closing tags, each with the tags that may follow it. None: any text may."""

    def __init__(self, tags: Mapping[str, Sequence[str] | None]) -> None:
        self._tags = tags
        self._markers = Markers(*tags)

    def read(self, tape: Tape, take: Take) -> Steps[str]:
        """Take the value and read its closing tag, with the white space after it."""
        while True:
            tag = yield from tape.before(self._markers, take)
            follows = self._tags[tag]
            if follows is None:
                return tag
            spaces = yield from tape.space()
            if (yield from tape.ahead(*follows)):
                return tag
            take(tag + spaces)


def argument(
    tape: Tape, closers: Closers, arguments: Arguments, types: frozenset[str] | None
) -> Steps[str]:
    """Read a value into the open call's arguments and return its closing tag. A string is written
    while it comes; the type of any other value is known at its end."""
    if only_string(types):
        arguments.raw('"')
        tag = yield from closers.read(tape, arguments.text)
        arguments.raw('"')
    else:
        pieces: list[str] = []
        tag = yield from closers.read(tape, pieces.append)
        arguments.raw(as_json("".join(pieces), types))
    return tag
