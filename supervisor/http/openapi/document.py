"""The OpenAPI document of a table of routes. Pure.

Schemas come from the structs that the handlers decode and encode, so they cannot drift. Source:
the OpenAPI Specification 3.1.1.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from supervisor.http.openapi.spec import Described

Json = dict[str, Any]

REF = "#/components/schemas/{name}"
ERROR_STATUSES: Mapping[str, str] = {
    "400": "a value that cannot be served; `param` names its field",
    "401": "no key, or a wrong one",
    "403": "the key may not do this",
    "404": "no such route or model",
    "408": "the body did not arrive in time",
    "413": "the body is too large",
    "415": "the body is not JSON",
    "429": "a limit of the key is reached",
    "500": "the service failed; the log has the request's id",
    "501": "a route for work that this service does not do",
    "503": "overloaded, loading or draining; `Retry-After` says for how long",
}

PARTIAL: tuple[Json, ...] = (
    {"type": "object"},
    {"type": "array", "items": {"type": "object"}},
)

_PARAMETER = re.compile(r"\{(\w+)(?::[^}]*)?\}")


def document(operations: Iterable[Described], *, version: str, errors: Mapping[str, Json]) -> Json:
    """The document as JSON. `errors` has the schema of each group's errors."""
    found = list(operations)
    types = [kind for each in found for kind in (each.spec.body, each.spec.answer) if kind]
    refs, schemas = msgspec.json.schema_components(types, ref_template=REF)
    # types are compared by identity: unions of equal members are other objects
    by_type = {id(kind): ref for kind, ref in zip(types, refs, strict=True)}
    paths: dict[str, Json] = {}
    for each in found:
        path = _PARAMETER.sub(r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, by_type)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "gpufc",
            "version": version,
            "summary": "Local inference that survives its engine",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": group} for group in dict.fromkeys(each.group for each in found)],
        "paths": paths,
        "components": {
            "schemas": schemas | {_error_name(group): schema for group, schema in errors.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def schema_of(example: object) -> Json:
    """The schema of documents that are built like `example`: all of its members are required."""
    if isinstance(example, dict):
        return {
            "type": "object",
            "properties": {name: schema_of(value) for name, value in example.items()},
            "required": list(example),
        }
    if example is None:
        return {"type": ["string", "null"]}
    return {"type": "string"}


def _operation(each: Described, refs: Mapping[int, Json]) -> Json:
    spec = each.spec
    content: Json = {}
    if spec.answer is not None:
        schema = refs[id(spec.answer)]
        content["application/json"] = {
            "schema": {"anyOf": [schema, *PARTIAL]} if spec.partial else schema
        }
    if spec.stream is not None:
        # no schema: validators hold each event to it, not the text
        content[spec.stream] = {}
    answered: Json = {"description": each.summary}
    if content:
        answered["content"] = content
    operation: Json = {
        "summary": each.summary,
        "tags": [each.group],
        "operationId": _operation_id(each),
        "responses": _errors(each) if spec.refuses else {"200": answered, **_errors(each)},
    }
    names = _PARAMETER.findall(each.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if spec.body is not None:
        media: Json = {"schema": refs[id(spec.body)]}
        if spec.example is not None:
            media["examples"] = {"first": {"value": spec.example}}
        operation["requestBody"] = {"required": True, "content": {"application/json": media}}
    if each.scope:
        # an open service needs no key
        operation["security"] = [{"key": [each.scope]}, {}]
    return operation


def _errors(each: Described) -> Json:
    content = {"application/json": {"schema": {"$ref": REF.format(name=_error_name(each.group))}}}
    return {
        status: {"description": text, "content": content} for status, text in ERROR_STATUSES.items()
    }


def _error_name(group: str) -> str:
    return re.sub(r"\W", "", group.title()) + "Error"


def _operation_id(each: Described) -> str:
    words = re.sub(r"\W+", "_", _PARAMETER.sub(r"\1", each.path)).strip("_")
    return f"{each.method.lower()}_{words or 'index'}"
