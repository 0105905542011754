"""A constraint on the text of an answer, as it crosses the link."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

MAX_CONSTRAINT_BYTES = 64 << 10
"""The largest schema, regular expression or grammar."""
MAX_FORMAT_BYTES = 1 << 20
"""The largest format of an answer, with the schemas of all of its functions."""


class ConstraintKind(StrEnum):
    """The language that a constraint is written in. `CHOICE` is a JSON list of strings, `ANSWER` a
    `gpufc.answer_format.AnswerFormat` as JSON."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    LARK = "lark"
    GBNF = "gbnf"
    CHOICE = "choice"
    ANSWER = "answer_format"


class Constraint(Struct, frozen=True, array_like=True):
    """`param` is the client's field, which a refusal names. An equal `key` is the same grammar."""

    kind: ConstraintKind
    text: Annotated[str, Meta(max_length=MAX_FORMAT_BYTES)] = ""
    param: str = ""

    @property
    def key(self) -> tuple[ConstraintKind, str]:
        return self.kind, self.text
