"""The schema of all instances that another schema refuses, where one can be written down. Pure."""

from collections.abc import Iterator
from typing import Any

from engine_worker.constraints.references import References

ALL_TYPES = ("null", "boolean", "number", "string", "array", "object")
_MAX_DEPTH = 8
_SAYS_NOTHING = frozenset(
    {"$schema", "$id", "id", "$comment", "title", "description", "default", "examples", "example",
     "deprecated", "readOnly", "writeOnly", "strict", "$defs", "definitions"}
)  # fmt: skip


class NotExpressible(Exception):
    """The negation is not a schema that this module can write."""


def negated(schema: object, references: References, depth: int = 0) -> Any:
    """Raises `NotExpressible`."""
    if depth > _MAX_DEPTH:
        raise NotExpressible
    schema = references.resolved(schema)
    if isinstance(schema, bool):
        return not schema
    if not isinstance(schema, dict) or "$ref" in schema:
        raise NotExpressible
    parts = list(_parts(schema, references, depth))
    if any(part is True for part in parts):
        return True
    parts = [part for part in parts if part is not False]
    if not parts:
        return False
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


def _parts(schema: dict[str, Any], references: References, depth: int) -> Iterator[Any]:
    """The negation of each keyword; an instance that meets one of them is refused by the schema."""
    for key, value in schema.items():
        if key in _SAYS_NOTHING:
            continue
        match key:
            case "not":
                yield value
            case "allOf":
                yield from (negated(part, references, depth + 1) for part in value)
            case "anyOf":
                yield {"allOf": [negated(part, references, depth + 1) for part in value]}
            case "oneOf" if len(value) == 1:
                yield negated(value[0], references, depth + 1)
            case "type":
                yield {"type": _other_types(value)}
            case "required":
                yield from ({"type": "object", "properties": {name: False}} for name in value)
            case "properties":
                for name, part in value.items():
                    refused = negated(part, references, depth + 1)
                    if refused is not False:
                        yield {
                            "type": "object",
                            "properties": {name: refused},
                            "required": [name],
                        }
            case "const" if value is None or isinstance(value, bool):
                yield _other_than(value)
            case _:
                yield _of_bound(key, value)


def _of_bound(key: str, value: Any) -> Any:
    match key:
        case "minimum":
            return {"type": "number", "exclusiveMaximum": value}
        case "maximum":
            return {"type": "number", "exclusiveMinimum": value}
        case "minLength" | "minItems" | "minProperties" if isinstance(value, int):
            kind, most = _KINDS[key[3:]], "max" + key[3:]
            return False if value <= 0 else {"type": kind, most: value - 1}
        case "maxLength" | "maxItems" | "maxProperties" if isinstance(value, int):
            return {"type": _KINDS[key[3:]], "min" + key[3:]: value + 1}
        case "items" | "additionalProperties" | "additionalItems" if value in (True, {}):
            return False
        case _:
            raise NotExpressible


_KINDS = {"Length": "string", "Items": "array", "Properties": "object"}


def _other_types(given: Any) -> list[str]:
    named = {given} if isinstance(given, str) else set(given)
    if "integer" in named and "number" not in named:
        raise NotExpressible  # numbers with a fraction
    return [name for name in ALL_TYPES if name not in named]


def _other_than(value: bool | None) -> Any:
    if value is None:
        return {"type": [name for name in ALL_TYPES if name != "null"]}
    others = [name for name in ALL_TYPES if name != "boolean"]
    return {"anyOf": [{"type": others}, {"const": not value}]}
