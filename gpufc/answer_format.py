"""The format that an answer must have: reasoning, calls, text. The front describes it, a worker
compiles it.

It crosses the link as the text of a `Constraint` of the kind `ANSWER`. The front knows how a family
of models writes, and which functions may be called. The worker knows which of the family's markers
are control tokens of the model, and which schemas a mask can enforce.
"""

from typing import Any

import msgspec
from msgspec import Struct

from gpufc.constraint import Constraint, ConstraintKind

MAX_CALLS = 16
"""Calls in an answer that must have some. A small model may repeat itself for ever."""

NUMBER = "\x00"
"""In a text of a format: digits of the model's choice."""
KEY, TYPE = "\x01", "\x02"
"""In a text around a member: its name, and the JSON type of its value."""


class Span(Struct, frozen=True):
    """Texts around something."""

    begin: str = ""
    end: str = ""


class Members(Struct, frozen=True):
    """Arguments that are written one by one, each with its name. Without it they are one object.

    Strings stand in `string`, and are raw text if `raw`. Other values are JSON in `other`. A raw
    string may have none of `forbidden` in it. `keys` is the pattern of names that can be written.
    """

    string: Span
    other: Span
    between: str = ""
    raw: bool = True
    forbidden: tuple[str, ...] = ()
    keys: str = r"[\w.-]+"


class Function(Struct, frozen=True):
    """A function that may be called: the texts around its arguments, and their schema.

    The schema of a `strict` one is enforced or refused. That of another one becomes any object
    where it cannot be enforced.
    """

    name: str
    around: Span
    schema: dict[str, Any]
    strict: bool = False


class Calls(Struct, frozen=True):
    """At least one call: `section` is around all calls, `between` separates them."""

    functions: tuple[Function, ...]
    section: Span = Span()
    between: str = ""
    members: Members | None = None
    most: int | None = None

    @property
    def first(self) -> str:
        """The text with which a call of the first function begins."""
        return self.section.begin + self.functions[0].around.begin


class Text(Struct, frozen=True):
    """The answer's own text, around which `around` stands. It is JSON if it has a `schema`.

    It does not begin with a match of the pattern `not_first`.
    """

    around: Span = Span()
    schema: dict[str, Any] | bool | None = None
    not_first: str = ""


class AnswerFormat(Struct, frozen=True):
    """Spans, then calls or text.

    | field | meaning |
    | --- | --- |
    | `markers` | texts that may be control tokens of the model |
    | `inside` | the prompt has opened a span that ends so |
    | `spans` | what may come first, any number of them, with a gap of blanks around if `gaps` |
    | `trigger` | calls begin with it, anywhere in free text; the spans are a part of that text |
    | `forbidden` | texts that stand neither in a span nor in the text |
    """

    markers: tuple[str, ...] = ()
    inside: str = ""
    spans: tuple[Span, ...] = ()
    gaps: bool = True
    calls: Calls | None = None
    text: Text | None = None
    trigger: str = ""
    forbidden: tuple[str, ...] = ()


_encode = msgspec.json.Encoder().encode


def constraint_of(answer: AnswerFormat, param: str) -> Constraint:
    """The constraint that makes an answer be of this format."""
    return Constraint(ConstraintKind.ANSWER, _encode(answer).decode(), param)
