"""Values that a family writes without JSON's quotes: their types come from the tool's schema."""

import json
import re
from collections.abc import Mapping
from json.encoder import encode_basestring

from gpufc.json_types import type_of, types_of
from supervisor.answers.parsers.answer import Answer
from supervisor.answers.parsers.family import Setup

CONTROL = re.compile(r"[\x00-\x1f]")
WORDS = {"true": True, "false": False, "null": None, "none": None}


def parameter_types(setup: Setup, tool: str, parameter: str) -> frozenset[str] | None:
    """The types that a tool's schema names for one of its parameters."""
    properties: object = setup.schemas.get(tool, {}).get("properties")
    return types_of(properties.get(parameter)) if isinstance(properties, Mapping) else None


def as_json(text: str, types: frozenset[str] | None) -> str:
    """A bare value as JSON: of one of these types if it can be read so, else a string."""
    bare = text.strip()
    try:
        value: object = json.loads(bare, parse_constant=_refuse, strict=False)
    except (ValueError, RecursionError):
        value = WORDS.get(bare.lower(), text)
        bare = json.dumps(value, ensure_ascii=False)
    if CONTROL.search(bare):  # in a string, or between values: written anew
        bare = json.dumps(value)
    if not types or "string" not in types or _fits(value, types):
        return bare
    return encode_basestring(text)


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def _fits(value: object, types: frozenset[str]) -> bool:
    name = type_of(value)
    return name != "string" and (name in types or (name == "integer" and "number" in types))


class Arguments:
    """Writes the open call's arguments member by member. The object is opened with the first."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._begun = False

    def key(self, name: str) -> None:
        """Begin a member; its value is written next."""
        begin = ", " if self._begun else "{"
        self._begun = True
        self._answer.argue(f"{begin}{encode_basestring(name)}: ")

    def text(self, piece: str) -> None:
        """The next piece of a string, inside its quotes."""
        self._answer.argue(encode_basestring(piece)[1:-1])

    def raw(self, text: str) -> None:
        """JSON text."""
        self._answer.argue(text)

    def end(self) -> None:
        self._answer.argue("}" if self._begun else "{}")


def only_string(types: frozenset[str] | None) -> bool:
    return types == frozenset(["string"])
