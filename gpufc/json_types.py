"""The JSON types of values, and those that a schema names. Pure."""

from collections.abc import Mapping

ALTERNATIVES = ("anyOf", "oneOf", "allOf")


def types_of(schema: object) -> frozenset[str] | None:
    """The JSON types that a schema names. None: it names none, or refers to another one."""
    if not isinstance(schema, Mapping):
        return None
    named = schema.get("type")
    if isinstance(named, str):
        return frozenset([named])
    if isinstance(named, list):
        return frozenset(name for name in named if isinstance(name, str))
    if isinstance(values := schema.get("enum"), list):
        return frozenset(map(type_of, values))
    if "const" in schema:
        return frozenset([type_of(schema["const"])])
    for key in ALTERNATIVES:
        if isinstance(members := schema.get(key), list):
            found = [types_of(member) for member in members]
            return None if None in found else frozenset().union(*(names or () for names in found))
    return None


def type_of(value: object) -> str:
    """The JSON type of a value."""
    match value:
        case bool():
            return "boolean"
        case None:
            return "null"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
