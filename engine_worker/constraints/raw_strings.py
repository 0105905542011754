"""Strings that a format writes without quotes: the pattern of all that a schema allows.

Where a keyword is not enforced, it is refused by its name.
"""

import re
from collections.abc import Sequence
from typing import Any

from engine_worker.constraints import llg
from engine_worker.constraints.enforced import Schema
from engine_worker.constraints.lark import any_of, without
from engine_worker.constraints.limits import MAX_NESTING, MAX_REPEATS, check_nesting, check_repeats
from engine_worker.constraints.schema import ASSERTIONS, FORMATS
from gpufc.errors import InvalidGrammar

_OF_STRINGS = frozenset(("type", "enum", "const", "minLength", "maxLength", "pattern"))
_BARE = frozenset(("null", "boolean", "number", "integer", "string"))
_ANCHOR = re.compile(r"\\.|\[\^|(\^|\$)", re.DOTALL)
"""An anchor is the group. What is escaped is none, and neither is the beginning of a class."""


def raw_pattern(schema: Schema, types: frozenset[str], forbidden: Sequence[str]) -> str:
    """The pattern of a schema's strings. Raises `InvalidGrammar`."""
    alternatives = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(alternatives, list) and "type" not in schema:
        for alternative in alternatives:
            require(alternative, frozenset(("type",)), "a string beside other types")
        require(schema, frozenset(("anyOf", "oneOf")), "a raw string")
    else:
        require(schema, _OF_STRINGS, "a raw string")
    if not types <= _BARE:
        raise InvalidGrammar("a string beside objects or lists is not supported")
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list):
        strings = [value for value in values if isinstance(value, str)]
        if len(strings) < len(values) or types != {"string"} or not strings:
            raise InvalidGrammar("an enum of strings and other values is not supported")
        if any(text in value for value in strings for text in forbidden):
            raise InvalidGrammar("a value of an enum has a marker of the model's format in it")
        return any_of(strings)
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    pattern = without(forbidden)
    if least or most is not None:
        if not all(isinstance(n, int) and 0 <= n <= MAX_REPEATS for n in (least, most or 0)):
            raise InvalidGrammar("minLength or maxLength is too large")
        pattern += rf" & /(.|\n){{{least},{'' if most is None else most}}}/"
    if "pattern" in schema:
        pattern += f" & {_with_match(str(schema['pattern']))}"
    return pattern


def _with_match(pattern: str) -> str:
    """The pattern of all texts in which a regular expression matches somewhere."""
    begins, ends = pattern.startswith("^"), re.search(r"(?<!\\)\$\Z", pattern) is not None
    body = pattern[begins : len(pattern) - ends]
    is_choice = "|" in body and (begins or ends)
    if is_choice or any(match[1] for match in _ANCHOR.finditer(body)):
        raise InvalidGrammar("pattern is not supported in a raw string with these anchors")
    check_nesting(body, MAX_NESTING)
    check_repeats(body)
    before, after = ("" if anchored else r"(.|\n)*" for anchored in (begins, ends))
    found = rf"{before}({body}){after}"
    llg.check(llg.from_regex(found))
    return f"/{_between_slashes(found)}/"


def _between_slashes(pattern: str) -> str:
    return re.sub(r"\\.|/|\n", _slashed, pattern, flags=re.DOTALL)


def _slashed(match: re.Match[str]) -> str:
    return {"/": r"\x{2F}", "\\/": r"\x{2F}", "\n": r"\x{A}"}.get(match.group(), match.group())


def require(schema: Any, known: frozenset[str], place: str = "the model's format") -> None:
    """Raises `InvalidGrammar` for a keyword that is not among the known ones."""
    for key, value in (schema if isinstance(schema, dict) else {}).items():
        if key == "format" and value not in FORMATS:
            continue
        if key in ASSERTIONS and key not in known:
            raise InvalidGrammar(f"{key} is not supported in {place}")
