"""Constraints of every kind: what their masks allow, and which are refused, by what name."""

import json
from typing import Any

import pytest

from gpufc.constraint import MAX_CONSTRAINT_BYTES, Constraint, ConstraintKind
from gpufc.errors import InvalidGrammar
from tests.engine_worker.constraints.matchers import allows, matcher, schema


@pytest.mark.parametrize(
    ("kind", "text", "allowed", "refused"),
    [
        (ConstraintKind.REGEX, "[0-9]{3}-[a-z]+", "123-ab", "12-ab"),
        (ConstraintKind.CHOICE, '["yes", "no \\"way\\""]', 'no "way"', "no"),
        (ConstraintKind.LARK, 'start: "a" ("b" | "c")+', "abcb", "ad"),
        (ConstraintKind.GBNF, 'root ::= ("x" | "y")+ [0-9]', "xyx7", "xy"),
        (ConstraintKind.JSON_OBJECT, "", '{"a": [1, null]}', "[1]"),
    ],
)
def test_a_constraint_allows_its_texts_only(
    kind: ConstraintKind, text: str, allowed: str, refused: str
) -> None:
    assert allows(Constraint(kind, text), allowed)
    assert not allows(Constraint(kind, text), refused)


ANNOTATED = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "$id": "x",
    "$comment": "c",
    "title": "t",
    "description": "d",
    "default": 1,
    "examples": [1],
    "deprecated": True,
    "readOnly": True,
    "writeOnly": True,
    "strict": True,
    "x-guidance": {"lenient": True},
    "format": "an-unknown-format",
    "type": "string",
}


def test_annotations_and_unknown_formats_are_no_reason_to_refuse() -> None:
    assert allows(schema(ANNOTATED), '"anything"')
    assert not allows(schema(ANNOTATED), "1")


@pytest.mark.parametrize(
    ("given", "valid", "invalid"),
    [
        ({"not": {"type": "number"}}, "a", 1),
        ({"type": "object", "not": {"required": ["a"]}}, {"b": 1}, {"a": 1}),
        ({"not": {"type": "object"}}, [1], {}),
        ({"type": "integer", "not": {"minimum": 5}}, 4, 5),
        ({"not": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, 3, "x"),
        ({"not": {"not": {"type": "boolean"}}}, True, "x"),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, 5, None),
        (
            {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"b": 1},
            {"a": 1, "b": 1},
        ),
        (
            {
                "oneOf": [
                    {
                        "type": "object",
                        "properties": {"kind": {"const": name}, name: {"type": "integer"}},
                        "required": ["kind", name],
                        "additionalProperties": False,
                    }
                    for name in ("x", "y")
                ]
            },
            {"kind": "y", "y": 1},
            {"kind": "y", "x": 1},
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "dependencies": {"a": ["b"]},
            },
            {"a": 1, "b": 2},
            {"a": 1},
        ),
        (
            {
                "type": "number",
                "if": {"maximum": 3},
                "then": {"minimum": 1},
            },
            2,
            0,
        ),
        ({"type": "string", "pattern": '^[^"]+$'}, "ab", 'a"b'),
        ({"type": "object", "properties": None, "required": None, "items": None}, {"a": 1}, 1),
        ({"type": None, "const": None, "oneOf": None}, None, 0),
        ({"type": "string", "pattern": r"^[^\\]+$"}, "ab", "a\\b"),
    ],
)
def test_a_rewritten_keyword_keeps_its_instances(given: Any, valid: Any, invalid: Any) -> None:
    assert allows(schema(given), json.dumps(valid))
    assert not allows(schema(given), json.dumps(invalid))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "not": {"pattern": "a"}}, "not"),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({"type": "array", "contains": {"type": "string"}}, "contains"),
        ({"oneOf": [{"pattern": "a"}, {"pattern": "b"}]}, "oneOf"),
        ({"type": "string", "minLength": 10**9}, "minLength"),
        ({"type": "string", "pattern": "^a{1000000000}$"}, "repetition"),
        ({"type": "array", "minItems": 10**9}, "minItems"),
        ({"type": "integer", "multipleOf": 1_234_567}, "multipleOf"),
        ({"oneOf": [{"required": [name]} for name in "abcdefghijklmnopqrstuvwxyz"]}, "oneOf"),
        ({"type": "number", "multipleOf": 2.0**40}, "multipleOf"),
    ],
)
def test_a_keyword_that_no_mask_enforces_is_refused_by_name(given: Any, named: str) -> None:
    with pytest.raises(InvalidGrammar, match=named):
        matcher(schema(given))


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        found = {"type": "object", "properties": {"a": found}, "required": ["a"]}
    return found


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint(ConstraintKind.REGEX, "(" * 101 + "a" + ")" * 101),
        Constraint(ConstraintKind.REGEX, "a{1000000000}"),
        Constraint(ConstraintKind.LARK, "start: " + "(" * 30_000),
        Constraint(ConstraintKind.REGEX, " "),
        Constraint(ConstraintKind.CHOICE, "[]"),
        Constraint(ConstraintKind.CHOICE, "[1]"),
        Constraint(ConstraintKind.JSON_SCHEMA, "[" * 30_000),
        Constraint(ConstraintKind.JSON_SCHEMA, "3"),
        Constraint(ConstraintKind.JSON_SCHEMA, '{"minimum": NaN}'),
        Constraint(ConstraintKind.REGEX, "x" * (MAX_CONSTRAINT_BYTES + 1)),
        Constraint(ConstraintKind.GBNF, "root ::= missing"),
        schema(nested(40)),
        schema({"allOf": [{"$ref": "#"}, {"type": "object"}]}),
        schema({"type": "string", "pattern": "^a{1000000000}$"}),
        schema({"type": "string", "pattern": "(" * 101 + "a" + ")" * 101}),
        schema({"type": "object", "patternProperties": {"^a{1,1000000000}$": {}}}),
    ],
)
def test_what_is_malformed_or_over_a_limit_is_refused(constraint: Constraint) -> None:
    with pytest.raises(InvalidGrammar):
        matcher(constraint)


def test_a_schema_at_the_depth_limit_is_served() -> None:
    assert matcher(schema(nested(30))).forced()
