"""Rewrites a JSON schema into one that the grammar compiler enforces in full. Pure.

Annotations go. What is left is enforced, or refused by name.
"""

from engine_worker.constraints.limits import MAX_SCHEMA_DEPTH
from gpufc.errors import InvalidGrammar

ANNOTATIONS = frozenset(
    {"$schema", "$id", "id", "$comment", "title", "description", "default", "examples", "example",
     "deprecated", "readOnly", "writeOnly", "strict", "x-guidance"}
)  # fmt: skip


def rewritten(schema: object) -> object:
    """The schema without annotations. Raises `InvalidGrammar`."""
    return _walk(schema, 0)


def _walk(schema: object, depth: int) -> object:
    if depth > MAX_SCHEMA_DEPTH:
        raise InvalidGrammar(f"a schema has at most {MAX_SCHEMA_DEPTH} levels")
    if not isinstance(schema, dict):
        return schema
    return {k: v for k, v in schema.items() if k not in ANNOTATIONS}
