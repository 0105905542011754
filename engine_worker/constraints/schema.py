"""Rewrites a JSON schema into one that the grammar compiler enforces in full. Pure.

Annotations go, unknown keywords and unknown formats among them: they assert nothing. `not`,
`dependencies`, `if` and `oneOf` become `anyOf` where `negation` and `disjoint` can prove that the
instances are the same. The compiler refuses whatever else it does not know, by name.
"""

from typing import Any

from engine_worker.constraints.disjoint import are_disjoint
from engine_worker.constraints.limits import (
    MAX_NESTING,
    MAX_SCHEMA_DEPTH,
    check_count,
    check_nesting,
    check_repeats,
)
from engine_worker.constraints.negation import NotExpressible, negated
from engine_worker.constraints.patterns import enforceable
from engine_worker.constraints.references import References
from gpufc.errors import InvalidGrammar
from gpufc.null_keywords import without_null_keywords

Schema = dict[str, Any]

ASSERTIONS = frozenset(
    (
        "$ref", "$defs", "definitions", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef",
        "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependencies", "dependentSchemas",
        "dependentRequired", "type", "enum", "const", "properties", "patternProperties",
        "additionalProperties", "propertyNames", "unevaluatedProperties", "minProperties",
        "maxProperties", "required", "items", "prefixItems", "additionalItems", "contains",
        "minContains", "maxContains", "unevaluatedItems", "minItems", "maxItems", "uniqueItems",
        "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "minLength",
        "maxLength", "pattern", "format",
    )
)  # fmt: skip
"""Keywords that restrict instances, of all drafts. Any other keyword is an annotation."""

FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
"""The formats that the compiler enforces. JSON Schema makes `format` an annotation by default."""

_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = (
    "additionalProperties", "propertyNames", "unevaluatedProperties", "additionalItems", "contains",
    "unevaluatedItems", "not", "if", "then", "else",
)  # fmt: skip
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_DEPENDENCIES = ("dependencies", "dependentRequired", "dependentSchemas")
_MAX_NODES = 20_000
_MAX_PATTERN = 4096
_MAX_OVERLAPS = 400
"""Pairs of branches of a `oneOf` that may overlap. Each one repeats a branch, so that more of them
make a schema that is too large in any case."""
_MAX_MULTIPLE = 65_536
"""The largest `multipleOf`, without its zeros at the end: the compiler makes a state for each
remainder."""


def rewritten(schema: object) -> object:
    """The schema to compile. Raises `InvalidGrammar`, which names the keyword at fault."""
    if not isinstance(schema, dict | bool):
        raise InvalidGrammar("a schema is an object or a boolean")
    schema = without_null_keywords(schema)
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        schema = {"allOf": [{"$ref": schema["$ref"]}], **_without(schema, "$ref")}
    return _Rewriter(schema).rewrite(schema, 0)


class _Rewriter:
    """Rewrites one document, whose references it resolves."""

    def __init__(self, document: object) -> None:
        self._references = References(document)
        self._n_nodes = 0

    def rewrite(self, schema: object, depth: int) -> object:
        """A schema at this depth, with everything in it."""
        self._n_nodes += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise InvalidGrammar(f"a schema has at most {MAX_SCHEMA_DEPTH} levels")
        if self._n_nodes > _MAX_NODES:
            raise InvalidGrammar(f"a schema has at most {_MAX_NODES} parts once it is expanded")
        if not isinstance(schema, dict):
            return schema
        kept = {key: value for key, value in schema.items() if _asserts(key, value)}
        _check_counts(kept)
        kept, added = self._expressed(kept)
        made = {key: self._rewrite_value(key, value, depth) for key, value in kept.items()}
        if added:
            own = made.get("allOf")
            beside = [self.rewrite(part, depth + 1) for part in added]
            made["allOf"] = [*(own if isinstance(own, list) else []), *beside]
        return made

    def _rewrite_value(self, key: str, value: Any, depth: int) -> object:
        if key == "pattern" and isinstance(value, str):
            return _pattern(value)
        if key == "patternProperties" and isinstance(value, dict):
            value = {_pattern(name): part for name, part in value.items()}
        if key in _NAMED and isinstance(value, dict):
            return {name: self.rewrite(part, depth + 1) for name, part in value.items()}
        if key in _LISTS and isinstance(value, list):
            return [self.rewrite(part, depth + 1) for part in value]
        if key == "items" and isinstance(value, list):
            return [self.rewrite(part, depth + 1) for part in value]
        if key in _SINGLE or key == "items":
            return self.rewrite(value, depth + 1)
        return value

    def _expressed(self, schema: Schema) -> tuple[Schema, list[Schema]]:
        """The schema without keywords that can be said in others, and schemas to hold beside it."""
        rest, added = dict(schema), []
        for key, express in (
            *((key, _dependencies) for key in _DEPENDENCIES),
            ("if", self._condition),
            ("not", self._negation),
            ("oneOf", self._one_of),
        ):
            if key not in rest:
                continue
            try:
                added += express(rest)
            except NotExpressible:
                continue
            for used in ("if", "then", "else") if key == "if" else (key,):
                rest.pop(used, None)
        if "if" not in rest:  # `then` and `else` alone assert nothing
            rest.pop("then", None)
            rest.pop("else", None)
        return rest, added

    def _condition(self, schema: Schema) -> list[Schema]:
        test, added = schema["if"], []
        if "then" in schema:
            added.append({"anyOf": [negated(test, self._references), schema["then"]]})
        if "else" in schema:
            added.append({"anyOf": [test, schema["else"]]})
        return added

    def _negation(self, schema: Schema) -> list[Schema]:
        found = negated(schema["not"], self._references)
        return [{"allOf": [found]} if isinstance(found, bool) else found]

    def _one_of(self, schema: Schema) -> list[Schema]:
        """Each branch without the instances of the branches that may overlap with it."""
        branches = schema["oneOf"]
        if not isinstance(branches, list) or not branches:
            raise NotExpressible
        found: list[Schema] = []
        n_overlaps = 0
        for at, branch in enumerate(branches):
            others = [
                negated(other, self._references)
                for number, other in enumerate(branches)
                if number != at and not are_disjoint(branch, other, self._references, schema)
            ]
            n_overlaps += len(others)
            if n_overlaps > _MAX_OVERLAPS:
                raise NotExpressible
            found.append({"allOf": [branch, *others]} if others else branch)
        return [{"anyOf": found}]


def _dependencies(schema: Schema) -> list[Schema]:
    """What the first of three keywords says: they differ in the drafts that have them."""
    given = next(schema[key] for key in _DEPENDENCIES if key in schema)
    if not isinstance(given, dict):
        raise NotExpressible
    return [
        {
            "anyOf": [
                {"properties": {name: False}},
                {"required": needed} if isinstance(needed, list) else needed,
            ]
        }
        for name, needed in given.items()
    ]


def _asserts(key: str, value: object) -> bool:
    match key:
        case "format":
            return value in FORMATS
        case "uniqueItems":
            return value is not False
        case _:
            return key in ASSERTIONS


def _check_counts(schema: Schema) -> None:
    for key in _COUNTS:
        value = schema.get(key)
        if isinstance(value, int | float):
            try:
                check_count(str(int(value)))
            except (InvalidGrammar, OverflowError):
                if not key.startswith("max"):
                    raise InvalidGrammar(f"{key} is too large") from None
    multiple = schema.get("multipleOf")
    if isinstance(multiple, int | float) and _is_too_fine(multiple):
        raise InvalidGrammar("multipleOf has too many digits")


def _pattern(text: str) -> str:
    """A regular expression of the schema, within the bounds of one that stands alone."""
    if len(text) > _MAX_PATTERN:
        raise InvalidGrammar("pattern is too long")
    check_nesting(text, MAX_NESTING)
    check_repeats(text)
    return enforceable(text)


def _is_too_fine(multiple: float) -> bool:
    if multiple < 1 or multiple != multiple // 1:
        return False
    return int(str(int(multiple)).rstrip("0")) > _MAX_MULTIPLE


def _without(schema: Schema, key: str) -> Schema:
    return {name: value for name, value in schema.items() if name != key}
