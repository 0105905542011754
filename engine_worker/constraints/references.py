"""References within one schema. Pure."""

from typing import Any
from urllib.parse import unquote

_MAX_STEPS = 16


class References:
    """Resolves `#/a/b` against one document."""

    def __init__(self, document: object) -> None:
        self._document = document

    def resolved(self, schema: object) -> Any:
        """The schema that a lone `$ref` stands for; any other schema as it is."""
        for _ in range(_MAX_STEPS):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                return schema
            found = self._at(schema["$ref"])
            if found is None:
                return schema
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {"allOf": [found, beside]} if _asserts_anything(beside) else found
        return schema

    def _at(self, pointer: str) -> object:
        if pointer == "#":
            return self._document
        if not pointer.startswith("#/"):
            return None
        here: Any = self._document
        for part in pointer[2:].split("/"):
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(here, dict) and name in here:
                here = here[name]
            elif isinstance(here, list) and name.isdecimal() and int(name) < len(here):
                here = here[int(name)]
            else:
                return None
        return here


def _asserts_anything(schema: dict[str, Any]) -> bool:
    return not set(schema) <= {"title", "description", "default", "examples", "$comment"}
