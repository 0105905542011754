"""Proofs that no instance is valid under two schemas at once. Pure.

A proof needs one thing that both schemas ask for and that excludes the other. Without a proof two
schemas may overlap.
"""

import json
from typing import Any

from engine_worker.constraints.references import References

_ALL = frozenset({"null", "boolean", "number", "string", "array", "object"})
_MAX_DEPTH = 6


def are_disjoint(
    first: object, second: object, references: References, beside: dict[str, Any]
) -> bool:
    """Whether two branches of the schema `beside` certainly share no instance."""
    context: dict[str, Any] = {key: beside[key] for key in ("type", "required") if key in beside}
    views_a, views_b = (_views(branch, references, context) for branch in (first, second))
    return _disjoint(views_a, views_b, references, 0)


Views = list[list[dict[str, Any]]]
"""Alternatives, each a list of schemas that hold together."""


def _disjoint(first: Views, second: Views, references: References, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        return False
    return all(_conflict(a, b, references, depth) for a in first for b in second)


def _views(schema: object, references: References, context: dict[str, Any]) -> Views:
    """A schema's alternatives (`anyOf`, `oneOf`), with what all of them must meet (`allOf`)."""
    found = _alternatives(schema, references, 0)
    return [[context, *view] for view in found]


def _alternatives(schema: object, references: References, depth: int) -> Views:
    schema = references.resolved(schema)
    if schema is False:
        return []
    if not isinstance(schema, dict) or depth > 4:
        return [[]]
    views: Views = [[schema]]
    for part in schema.get("allOf", ()):
        views = [[*a, *b] for a in views for b in _alternatives(part, references, depth + 1)]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            options = [
                view for part in schema[key] for view in _alternatives(part, references, depth + 1)
            ]
            if len(views) * len(options) > 64:
                continue
            views = [[*a, *b] for a in views for b in options]
    return views


def _conflict(
    a: list[dict[str, Any]], b: list[dict[str, Any]], references: References, depth: int
) -> bool:
    types_a, types_b = _types(a), _types(b)
    common = _common(types_a, types_b)
    if not common:
        return True
    values_a, values_b = _values(a), _values(b)
    if values_a is not None and values_b is not None and not values_a & values_b:
        return True
    if _bounds_apart(a, b) and common <= {"number", "integer"}:
        return True
    if common != {"object"}:
        return False
    return (
        _lacks(a, _required(b))
        or _lacks(b, _required(a))
        or _property_apart(a, b, references, depth)
    )


def _types(view: list[dict[str, Any]]) -> frozenset[str]:
    types = _ALL
    for schema in view:
        given = schema.get("type")
        if isinstance(given, str):
            types = _common(types, frozenset({given}))
        elif isinstance(given, list):
            types = _common(types, frozenset(map(str, given)))
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(values, list):
            types = _common(types, frozenset(map(_type_of, values)))
    return types


def _common(a: frozenset[str], b: frozenset[str]) -> frozenset[str]:
    """The types in both; every integer is a number."""
    found = set(a & b)
    if ("integer" in a and "number" in b) or ("integer" in b and "number" in a):
        found.add("integer")
    return frozenset(found)


def _type_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _values(view: list[dict[str, Any]]) -> frozenset[str] | None:
    """The only values that a view allows, where it lists them."""
    found: frozenset[str] | None = None
    for schema in view:
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(values, list):
            texts = frozenset(map(_text_of, values))
            found = texts if found is None else found & texts
    return found


def _text_of(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def _bounds_apart(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> bool:
    return _above(a) > _below(b) or _above(b) > _below(a)


def _above(view: list[dict[str, Any]]) -> float:
    return max((s["minimum"] for s in view if _is_number(s.get("minimum"))), default=float("-inf"))


def _below(view: list[dict[str, Any]]) -> float:
    return min((s["maximum"] for s in view if _is_number(s.get("maximum"))), default=float("inf"))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _required(view: list[dict[str, Any]]) -> frozenset[str]:
    return frozenset(
        name for schema in view for name in _listed(schema.get("required")) if isinstance(name, str)
    )


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []  # draft 3 has booleans


def _lacks(view: list[dict[str, Any]], names: frozenset[str]) -> bool:
    """Whether a view forbids one of the properties."""
    for schema in view:
        properties = schema.get("properties", {})
        closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
        for name in names:
            if properties.get(name) is False or (closed and name not in properties):
                return True
    return False


def _property_apart(
    a: list[dict[str, Any]], b: list[dict[str, Any]], references: References, depth: int
) -> bool:
    """Whether a property that both require has disjoint schemas."""
    for name in _required(a) & _required(b):
        of_a = [s["properties"][name] for s in a if name in s.get("properties", {})]
        of_b = [s["properties"][name] for s in b if name in s.get("properties", {})]
        if of_a and of_b:
            views_a, views_b = (_views({"allOf": of}, references, {}) for of in (of_a, of_b))
            if _disjoint(views_a, views_b, references, depth + 1):
                return True
    return False
