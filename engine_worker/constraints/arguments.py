"""The arguments of a call in a grammar: one JSON object, or members written one by one. Pure.

A raw string stands without quotes: it ends where its closing text begins, so that neither that text
nor any other that a parser would take for an end may be in it. The JSON types that a schema names
decide what is raw, as they do in the parsers.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from engine_worker.constraints.enforced import Schema, definitions, enforced, of_types, relaxed
from engine_worker.constraints.lark import Lark, one_of, some, without
from engine_worker.constraints.raw_strings import raw_pattern, require
from engine_worker.constraints.schema import ASSERTIONS
from gpufc.answer_format import KEY, TYPE, Function, Members
from gpufc.errors import InvalidGrammar
from gpufc.json_types import types_of

_OF_OBJECTS = frozenset(
    ("type", "properties", "required", "additionalProperties", "$defs", "definitions")
)
"""The keywords of a schema whose members can be written one by one."""


class Member(Struct, frozen=True):
    """A member that may or must be written: its expression."""

    expression: str
    required: bool


class Writer:
    """Writes the arguments of one format's functions."""

    def __init__(self, lark: Lark, members: Members | None, *, loose: bool = False) -> None:
        """`loose`: of a function that is not strict, only the types of its parameters count."""
        self._lark = lark
        self._members = members
        self._loose = loose

    def arguments(self, function: Function) -> str:
        """The expression of a function's arguments; possibly empty. Raises `InvalidGrammar`."""
        try:
            schema = _closed(function.schema)
            if self._loose and not function.strict:
                return self._written(_typed(schema), strict=False)
            try:
                return self._written(schema, strict=True)
            except InvalidGrammar:
                if function.strict:
                    raise
            return self._written(schema, strict=False)
        except InvalidGrammar as err:
            raise InvalidGrammar(f"function {function.name}: {err.message}") from None

    def _written(self, schema: Schema, *, strict: bool) -> str:
        if self._members is not None:
            return self._one_by_one(schema, self._members, strict=strict)
        return self._lark.json(enforced(schema) if strict else relaxed(schema))

    def _one_by_one(self, schema: Schema, members: Members, *, strict: bool) -> str:
        if strict:
            require(schema, _OF_OBJECTS)
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return self._any_members(schema, members, strict=strict)
        required = schema.get("required")
        needed = {name for name in required if name in properties} if required else set()
        if strict and required and len(needed) < len(set(required)):
            raise InvalidGrammar("a required property is not among the properties")
        shared = definitions(schema)
        found = []
        for name, value in properties.items():
            if value is False and name not in needed:
                continue
            if re.fullmatch(members.keys, name) is None:
                if strict or name in needed:
                    raise InvalidGrammar(
                        f"the model's format has no properties named {name[:50]!r}"
                    )
                continue
            expression = self._member(name, value, shared, members, strict=strict)
            found.append(Member(expression, name in needed))
        return self._listed(found, members.between)

    def _any_members(self, schema: Schema, members: Members, *, strict: bool) -> str:
        """Members of any names."""
        others = schema.get("additionalProperties", True)
        if others is False:
            return ""
        given = others if isinstance(others, dict) else {}
        value = self._json({**given, **definitions(schema)}, strict=strict)
        key = self._lark.terminal(f"/{members.keys}/")
        before, _, rest = _filled(members.other.begin, "", "object").partition(KEY)
        between = [self._lark.exact(before), key, self._lark.exact(rest), value]
        member = " ".join(filter(None, (*between, self._lark.exact(members.other.end))))
        more = some(f"{self._lark.exact(members.between)} {member}", 0, None)
        return f"({member} {more})?"

    def _member(
        self, name: str, schema: Any, shared: Schema, members: Members, *, strict: bool
    ) -> str:
        lark, types = self._lark, types_of(schema)
        if members.raw and types is not None and "string" in types:
            begin = _filled(members.string.begin, name, "string")
            return f"{lark.exact(begin)} {self._raw(schema, types, members, strict=strict)}"
        span = members.string if types == frozenset(["string"]) else members.other
        kind = min(types) if types else "object"
        given = {**schema, **shared} if isinstance(schema, dict) else {}
        parts = (_filled(span.begin, name, kind), span.end)
        value = self._json(given, strict=strict)
        return " ".join(filter(None, (lark.exact(parts[0]), value, lark.exact(parts[1]))))

    def _json(self, schema: Schema, *, strict: bool) -> str:
        try:
            return self._lark.json(enforced(schema))
        except InvalidGrammar:
            if strict:
                raise
        return self._lark.json(of_types(schema))

    def _raw(self, schema: Schema, types: frozenset[str], members: Members, *, strict: bool) -> str:
        """A raw string and its closing text."""
        try:
            pattern = raw_pattern(schema, types, members.forbidden)
        except InvalidGrammar:
            if strict:
                raise
            pattern = without(members.forbidden)
        return self._lark.until(members.string.end, pattern)

    def _listed(self, members: Sequence[Member], between: str) -> str:
        """Members in their order, with a text between those that are written."""
        separator = self._lark.exact(between)
        rests = [""]  # what may follow each member, from the last one
        for member in reversed(members):
            option = f"{separator} {member.expression}"
            one = f"({option})" if member.required else f"({option})?"
            rests.append(self._lark.rule(f"{one} {rests[-1]}"))
        rests.reverse()
        firsts = []
        for member, rest in zip(members, rests[1:], strict=True):
            firsts.append(self._lark.rule(f"{member.expression} {rest}"))
            if member.required:
                return one_of(firsts)
        return f"{one_of(firsts)}?" if firsts else ""


def _typed(schema: Schema) -> Schema:
    """The schema of objects with the same properties, of which only the types are left."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {"type": "object"}
    return {
        "type": "object",
        "properties": {name: of_types(value) for name, value in properties.items()},
        "required": [name for name in schema.get("required", ()) if name in properties],
    }


def _closed(schema: Schema) -> Schema:
    """A schema with no more than its own properties: fewer objects, all of them valid."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or (schema.keys() & ASSERTIONS) - _OF_OBJECTS:
        return schema
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    if "additionalProperties" in schema or not set(names) <= properties.keys():
        return schema
    return {**schema, "additionalProperties": False}


def _filled(text: str, key: str, kind: str) -> str:
    return text.replace(TYPE, kind).replace(KEY, key or KEY)
