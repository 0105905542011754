"""llama-server's `n_indent`: an answer ends in the first line that is indented less. Pure."""

import re
from collections.abc import Sequence
from functools import partial

from gpufc.protocol import FinishReason
from supervisor.answers.parts import Ended, Part, Text
from supervisor.dispatch.request import Reading, ReadingOf, plain

_BLANKS = re.compile(r"[ \t]*")


class IndentedText:
    """The answer's text up to a character with fewer than `least` blanks before it in its line.

    The first line goes on where the prompt ends, so that it counts as indented. Implements
    `Parser`.
    """

    __slots__ = ("_is_over", "_least", "_n_blanks")

    def __init__(self, least: int) -> None:
        self._least = least
        self._n_blanks: int | None = None  # of the line so far; None once it has another character
        self._is_over = False

    def feed(self, text: str) -> Sequence[Part]:
        kept = "" if self._is_over else text[: self._end_in(text)]
        return (Text(kept),) if kept else ()

    def end(self, reason: FinishReason) -> Sequence[Part]:
        return (Ended(FinishReason.LENGTH if self._is_over else reason),)

    def _end_in(self, text: str) -> int:
        """How much of a text belongs to the answer."""
        at = 0
        while at < len(text):
            if self._n_blanks is None:
                at = text.find("\n", at) + 1 or len(text) + 1
                self._n_blanks = 0 if at <= len(text) else None
                continue
            blanks = _BLANKS.match(text, at)
            end = blanks.end() if blanks else at
            self._n_blanks, at = self._n_blanks + end - at, end
            if at < len(text):
                if self._n_blanks < self._least:
                    self._is_over = True
                    return at
                self._n_blanks = None
        return len(text)


def reading_of(n_indent: int | None) -> ReadingOf:
    """The reading of an answer with at least so many blanks before each line."""
    if not n_indent:
        return plain
    reading = Reading(partial(IndentedText, n_indent))
    return lambda _opening: reading
