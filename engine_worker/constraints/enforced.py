"""Schemas within a format: as the compiler enforces them, or refused, or relaxed. Pure but for the
compiler's own check."""

import json
from typing import Any

from engine_worker.constraints import limits, llg
from engine_worker.constraints.schema import rewritten
from gpufc.errors import InvalidGrammar
from gpufc.json_types import types_of

Schema = dict[str, Any]


def enforced(schema: Schema | bool) -> Schema | bool:
    """The schema, rewritten for the compiler. Raises `InvalidGrammar` for one that it refuses."""
    text = json.dumps(schema)
    limits.check_size(text)
    found = rewritten(schema)
    if not isinstance(found, dict):
        return bool(found)
    llg.check(llg.from_json_schema(json.dumps(found)))
    return found


def relaxed(schema: Schema) -> Schema:
    """The schema of an object with those of its properties that can be enforced. Another property
    keeps its types only."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {"type": "object"}
    shared = definitions(schema)
    kept = {name: _value(value, shared) for name, value in properties.items()}
    found: Schema = {"type": "object", "properties": kept, **shared}
    required = schema.get("required")
    if isinstance(required, list):
        found["required"] = [name for name in required if name in properties]
    if schema.get("additionalProperties") is False:
        found["additionalProperties"] = False
    try:
        checked = enforced(found)
    except InvalidGrammar:
        return {"type": "object"}
    return checked if isinstance(checked, dict) else {"type": "object"}


def _value(schema: object, shared: Schema) -> Schema | bool:
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict):
        return {}
    try:
        enforced({**schema, **shared})
    except InvalidGrammar:
        return of_types(schema)
    return schema


def of_types(schema: object) -> Schema:
    """All values of the types that a schema names."""
    types = types_of(schema)
    return {"type": sorted(types)} if types else {}


def definitions(schema: Schema) -> Schema:
    """The parts of a schema that references point to."""
    return {key: schema[key] for key in ("$defs", "definitions") if key in schema}
