"""One constraint under several names, and its way to the worker."""

from typing import Any

import msgspec
import pytest

from gpufc.constraint import MAX_CONSTRAINT_BYTES, Constraint, ConstraintKind
from gpufc.errors import InvalidGrammar, InvalidRequest
from supervisor.http.generation.constraints import ConstraintFields, constraint_of

SCHEMA = {"type": "object", "required": ["a"]}
TEXT = '{"type":"object","required":["a"]}'


def read(fields: dict[str, Any]) -> Constraint | None:
    return constraint_of(msgspec.convert(fields, ConstraintFields))


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {"response_format": {"type": "json_schema", "schema": SCHEMA}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"response_format": {"type": "json", "value": SCHEMA}},
        {"response_format": {"type": "json_object", "value": SCHEMA}},
        {"response_format": {"type": "json", "schema": SCHEMA}},
        {"json_schema": SCHEMA},
        {"guided_json": SCHEMA},
        {"guided_json": TEXT},
        {"structured_outputs": {"json": SCHEMA}},
        {"guided_json": SCHEMA, "response_format": {"type": "json_object", "schema": SCHEMA}},
    ],
)
def test_a_schema_is_the_same_under_every_name(fields: dict[str, Any]) -> None:
    found = read(fields)
    assert found is not None
    assert found.key == (ConstraintKind.JSON_SCHEMA, TEXT)
    assert found.param.split(".")[0] in fields


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"response_format": {"type": "json_object"}}, ConstraintKind.JSON_OBJECT, ""),
        ({"structured_outputs": {"json_object": True}}, ConstraintKind.JSON_OBJECT, ""),
        ({"response_format": {"type": "json"}}, ConstraintKind.JSON_OBJECT, ""),
        ({"response_format": {"type": "json", "value": ""}}, ConstraintKind.JSON_OBJECT, ""),
        ({"response_format": {"type": "regex", "value": "a+"}}, ConstraintKind.REGEX, "a+"),
        ({"response_format": {"type": "regex", "regex": "a+"}}, ConstraintKind.REGEX, "a+"),
        ({"response_format": {"type": "regex", "pattern": "a+"}}, ConstraintKind.REGEX, "a+"),
        (
            {"response_format": {"type": "grammar", "grammar": 'root ::= "a"'}},
            ConstraintKind.GBNF,
            'root ::= "a"',
        ),
        ({"regex": "a+"}, ConstraintKind.REGEX, "a+"),
        ({"guided_regex": "a+"}, ConstraintKind.REGEX, "a+"),
        ({"structured_outputs": {"regex": "a+"}}, ConstraintKind.REGEX, "a+"),
        ({"guided_choice": ["x", "y"]}, ConstraintKind.CHOICE, '["x","y"]'),
        ({"structured_outputs": {"choice": ["x", "y"]}}, ConstraintKind.CHOICE, '["x","y"]'),
        ({"grammar": 'root ::= "a"'}, ConstraintKind.GBNF, 'root ::= "a"'),
        ({"ebnf": 'root ::= "a"'}, ConstraintKind.GBNF, 'root ::= "a"'),
        ({"guided_grammar": 'start: "a"'}, ConstraintKind.LARK, 'start: "a"'),
    ],
)
def test_each_field_has_its_kind(fields: dict[str, Any], kind: ConstraintKind, text: str) -> None:
    found = read(fields)
    assert found is not None
    assert found.key == (kind, text)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_format": {"type": "text"}},
        {"grammar": "", "regex": "", "json_schema": "", "guided_choice": []},
        {"response_format": None, "guided_json": None},
        {"structured_outputs": {}},
    ],
)
def test_nothing_asks_for_no_constraint(fields: dict[str, Any]) -> None:
    assert read(fields) is None


@pytest.mark.parametrize("kind", ["regex", "grammar"])
def test_a_format_without_its_text_is_refused(kind: str) -> None:
    for value in ({}, {"value": SCHEMA}, {"value": ""}):
        with pytest.raises(InvalidRequest) as refusal:
            read({"response_format": {"type": kind, **value}})
        assert refusal.value.param == f"response_format.{kind}"


def test_two_formats_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="two formats"):
        read({"regex": "a", "guided_json": SCHEMA})


def test_a_schema_over_the_limit_is_refused_with_its_field() -> None:
    with pytest.raises(InvalidGrammar) as refusal:
        read({"guided_regex": "a" * (MAX_CONSTRAINT_BYTES + 1)})
    assert refusal.value.param == "guided_regex"
