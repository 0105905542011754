"""Keywords of a JSON schema that are null. Clients whose language writes an absent list as null
send them, such as `required`. Pure."""

from typing import Any

NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords that hold schemas by names of the client's own."""

VALUES = ("const", "default", "example")
"""Keywords that are an instance: null is a value of theirs."""

LISTS = ("enum", "examples")
"""Keywords with lists of instances, which are left as they are."""


def without_null_keywords(schema: Any) -> Any:
    """The schema without such keywords, at every level. Recurses: the caller bounds the nesting."""
    match schema:
        case dict():
            return {
                key: _value(key, value)
                for key, value in schema.items()
                if value is not None or key in VALUES
            }
        case list():
            return [without_null_keywords(one) for one in schema]
        case _:
            return schema


def _value(key: str, value: Any) -> Any:
    if key in VALUES or key in LISTS:
        return value
    if key in NAMED and isinstance(value, dict):
        return {name: without_null_keywords(one) for name, one in value.items()}
    return without_null_keywords(value)
