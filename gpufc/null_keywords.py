"""Keywords of a JSON schema that are null. Clients whose language writes an absent list as null
send them, such as `required`. Pure."""

from typing import Any

NAMED = (
    *("properties", "patternProperties", "$defs", "definitions"),
    *("dependentSchemas", "dependencies"),
)
"""Keywords that hold schemas by names of the client's own."""

VALUES = ("const", "default", "example")
"""Keywords that are an instance: null is a value of theirs."""

LISTS = ("enum", "examples")
"""Keywords with lists of instances, which are left as they are."""


def without_null_keywords(schema: Any) -> Any:
    """The schema without such keywords, at every level. Recurses, one frame a level: the caller
    bounds the nesting."""
    if isinstance(schema, list):
        members = []
        for one in schema:
            members.append(without_null_keywords(one))
        return members
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key in VALUES:
            kept[key] = value
        elif value is None:
            continue
        elif key in LISTS:
            kept[key] = value
        elif key in NAMED and isinstance(value, dict):
            named = {}
            for name, one in value.items():
                named[name] = without_null_keywords(one)
            kept[key] = named
        else:
            kept[key] = without_null_keywords(value)
    return kept
