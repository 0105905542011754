"""The port of the parsers, and the parser of plain text. `parsers/` has those of the families.

A parser reads one choice's text, piece by piece as its log has it, and makes parts of it. It is a
pure function of the text so far:

- `feed(a)` then `feed(b)` leaves the same state as `feed(a + b)`, and gives the same parts once
  adjoining pieces are joined (`parts.joined`);
- each character is read once: the time for a text is linear in its length, however it is cut. A
  parser holds back a possible beginning of a marker, which is short, and the first characters of a
  tool call (`parsers/answer.py`).

So every reader of a log, one that resumes included, makes the same parts with a parser of its own.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from gpufc.protocol import FinishReason
from supervisor.answers.parts import Ended, Part, Text


class Parser(Protocol):
    """Makes one choice's parts, all but `Begun`. Belongs to one reader."""

    def feed(self, text: str) -> Sequence[Part]:
        """The parts that this piece completes: none, one or several. The hot path."""
        ...

    def end(self, reason: FinishReason) -> Sequence[Part]:
        """The parts of the text that was held back, and `Ended`. Called once, after all text."""
        ...


class Counting(Parser, Protocol):
    """A parser that tells how many calls are whole so far."""

    @property
    def n_calls(self) -> int: ...


NewParser = Callable[[], Parser]
"""Makes a parser in its initial state: one for each choice and reader."""

NewCounting = Callable[[], Counting]


class PlainText:
    """All text is the answer. Implements `Parser`."""

    __slots__ = ()

    n_calls = 0

    def feed(self, text: str) -> Sequence[Part]:
        return (Text(text),) if text else ()

    def end(self, reason: FinishReason) -> Sequence[Part]:
        return (Ended(reason),)
