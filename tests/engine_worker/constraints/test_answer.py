"""Formats of answers: what their grammars let pass, and what is refused."""

from typing import Any

import pytest

from engine_worker.constraints import llg
from engine_worker.constraints.grammar import grammar_of
from gpufc.answer_format import (
    KEY,
    NUMBER,
    TYPE,
    AnswerFormat,
    Calls,
    Function,
    Members,
    Span,
    Text,
    constraint_of,
)
from gpufc.constraint import MAX_FORMAT_BYTES, Constraint, ConstraintKind
from gpufc.errors import InvalidGrammar
from tests.engine_worker.constraints.matchers import TOKENIZER, allows

TAGS = Members(Span(f"<{KEY}>", "</>"), Span(f"<{KEY}:{TYPE}>", "</>"), forbidden=("</>", "</f>"))
LISTED = Members(Span(f"{KEY}='", "'"), Span(f"{KEY}="), between=",", forbidden=("'",))
TEXT = {"type": "string"}


def calling(
    schema: dict[str, Any], members: Members | None = None, *, strict: bool = True
) -> Constraint:
    """One call of one function."""
    function = Function("f", Span("<f>", "</f>"), schema, strict)
    return constraint_of(AnswerFormat(calls=Calls((function,), members=members, most=1)), "tools")


def of(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **more}


@pytest.mark.parametrize(
    ("schema", "text", "allowed"),
    [
        (of({"a": TEXT}, "a"), "<f><a>x</></f>", True),
        (of({"a": TEXT}, "a"), "<f></f>", False),
        (of({"a": TEXT}), "<f></f>", True),
        (of({"a": TEXT}, "a"), "<f><a></f></></f>", False),
        (of({"a": {"enum": ["x", "y"]}}, "a"), "<f><a>y</></f>", True),
        (of({"a": {"enum": ["x", "y"]}}, "a"), "<f><a>z</></f>", False),
        (of({"a": {"const": "x"}}, "a"), "<f><a>x</></f>", True),
        (of({"a": {**TEXT, "maxLength": 2}}, "a"), "<f><a>xyz</></f>", False),
        (of({"a": {**TEXT, "minLength": 2}}, "a"), "<f><a>x</></f>", False),
        (of({"a": {**TEXT, "pattern": "^x/[0-9]+$"}}, "a"), "<f><a>x/12</></f>", True),
        (of({"a": {**TEXT, "pattern": "^x/[0-9]+$"}}, "a"), "<f><a>x/12y</></f>", False),
        (of({"a": {**TEXT, "pattern": "[^0-9]\\$"}}, "a"), "<f><a>1x$1</></f>", True),
        (of({"a": {**TEXT, "pattern": "[^0-9]\\$"}}, "a"), "<f><a>1$1</></f>", False),
        (of({"a": {"type": ["string", "null"]}}, "a"), "<f><a>null</></f>", True),
        (of({"a": {"type": "integer", "maximum": 9}}, "a"), "<f><a:integer>7</></f>", True),
        (of({"a": {"type": "integer", "maximum": 9}}, "a"), "<f><a:integer>10</></f>", False),
        (of({"a": {"type": "array", "items": TEXT}}, "a"), '<f><a:array>["</f>"]</></f>', True),
        (of({"a": {"$ref": "#/$defs/t"}}, "a", **{"$defs": {"t": TEXT}}),
         '<f><a:object>"x"</></f>', True),
        (of({"a": TEXT, "b": TEXT, "c": TEXT}, "b"), "<f><a>1</><b>2</></f>", True),
        (of({"a": TEXT, "b": TEXT, "c": TEXT}, "b"), "<f><b>2</><c>3</></f>", True),
        (of({"a": TEXT, "b": TEXT, "c": TEXT}, "b"), "<f><c>3</></f>", False),
        ({"type": "object"}, '<f><any:object>[1]</><x:object>"y"</></f>', True),
        (of({}, additionalProperties=False), "<f></f>", True),
    ],
)  # fmt: skip
def test_members_are_written_in_the_order_of_the_schema_and_of_its_types(
    schema: dict[str, Any], text: str, allowed: bool
) -> None:
    assert allows(calling(schema, TAGS), text) is allowed


@pytest.mark.parametrize(
    ("written", "allowed"),
    [
        ("a='1',b='2',c='3'", True),
        ("b='2',c='3'", True),
        ("b='2'", True),
        (",b='2'", False),
        ("a='1'b='2'", False),
        ("a='1',b='2',", False),
    ],
)
def test_a_separator_stands_between_members_that_are_written(written: str, allowed: bool) -> None:
    schema = of({"a": TEXT, "b": TEXT, "c": TEXT}, "b")
    assert allows(calling(schema, LISTED), f"<f>{written}</f>") is allowed


@pytest.mark.parametrize(
    ("schema", "members", "keyword"),
    [
        (of({"a": {"type": "array", "uniqueItems": True}}), None, "uniqueItems"),
        (of({"a": {"type": "array", "uniqueItems": True}}), TAGS, "uniqueItems"),
        (of({"a": {**TEXT, "pattern": "^x|y$"}}), TAGS, "pattern"),
        (of({"a": {**TEXT, "pattern": "("}}), TAGS, ""),
        (of({"a": {**TEXT, "format": "date"}}), TAGS, "format"),
        (of({"a": TEXT}, minProperties=1), TAGS, "minProperties"),
        (of({"a": TEXT}, "b"), TAGS, "required"),
        (of({"a b": TEXT}), TAGS, "a b"),
        (of({"a": {"enum": ["</f>"]}}), TAGS, "marker"),
        (of({"a": {"enum": ["1", 1]}}), TAGS, "enum"),
    ],
)
def test_a_strict_function_is_enforced_or_refused_by_the_keyword(
    schema: dict[str, Any], members: Members | None, keyword: str
) -> None:
    with pytest.raises(InvalidGrammar, match=f"function f: .*{keyword}"):
        grammar_of(calling(schema, members))


def test_another_function_keeps_what_can_be_enforced() -> None:
    schema = of({"a": {"type": "array", "uniqueItems": True}, "n": {"enum": [1, 2]}}, "n")
    loose = calling(schema, strict=False)
    assert allows(loose, '<f>{"a": [1, 1], "n": 2}</f>')
    assert not allows(loose, '<f>{"a": [1], "n": 3}</f>')
    assert not allows(loose, '<f>{"a": [1]}</f>')
    assert not allows(loose, '<f>{"a": 1, "n": 2}</f>')
    assert allows(calling(schema, TAGS, strict=False), "<f><a:array>[1, 1]</><n:integer>2</></f>")


def test_an_object_has_no_more_members_than_its_schema_names() -> None:
    assert not allows(calling(of({"a": TEXT})), '<f>{"a": "x", "b": 1}</f>')
    assert allows(calling({"type": "object"}), '<f>{"b": 1}</f>')


def test_calls_are_counted_and_separated() -> None:
    function = Function("f", Span(f"f{NUMBER}(", ")"), of({}, additionalProperties=False))
    calls = Calls((function,), Span("[", "]"), "; ", most=2)
    answer = constraint_of(AnswerFormat(calls=calls), "tools")
    assert allows(answer, "[f0({})]")
    assert allows(answer, "[f0({}); f12({})]")
    assert not allows(answer, "[f0({})")
    assert not allows(answer, "[f0({}); f1({}); f2({})]")


THINK = Span("<think>", "</think>")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("<f>{}</f>", True),
        ("<think>hm</think>\n\n<f>{}</f>", True),
        ("<think></think><f>{}</f>", True),
        ("<think>hm<f>{}</f>", False),
        ("<think>hm</think>yes", False),
        ("yes", False),
    ],
)
def test_reasoning_may_come_before_calls(text: str, allowed: bool) -> None:
    function = Function("f", Span("<f>", "</f>"), of({}))
    answer = AnswerFormat(spans=(THINK,), calls=Calls((function,), most=1), forbidden=("<f>",))
    assert allows(constraint_of(answer, "tools"), text) is allowed


def test_reasoning_that_the_prompt_has_opened_ends_first() -> None:
    answer = AnswerFormat(inside="</think>", text=Text(schema={"type": "integer"}))
    assert allows(constraint_of(answer, "x"), "well</think>\n\n12")
    assert not allows(constraint_of(answer, "x"), "12")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", True),
        ("no call", True),
        ("a < b", True),
        ("well: <f>{}</f>", True),
        ("well: <f>", False),
        ("<f>{}</f> more", False),
        ("<g>", False),
    ],
)
def test_free_text_is_bound_from_the_trigger_on(text: str, allowed: bool) -> None:
    function = Function("f", Span("<f>", "</f>"), of({}))
    answer = AnswerFormat(
        calls=Calls((function,), most=1), text=Text(), trigger="<f>", forbidden=("<g>",)
    )
    assert allows(constraint_of(answer, "tools"), text) is allowed


def test_a_marker_that_is_a_control_token_is_that_token_and_no_text() -> None:
    function = Function("f", Span("<f>", "</f>"), of({}))
    answer = AnswerFormat(("<f>", "</f>"), calls=Calls((function,), most=1))
    lark = grammar_of(constraint_of(answer, "tools"), ("<f>", "</f>"))
    begin, end = llg.TRIAL_CONTROL[:2]
    matcher = llg.Matcher(TOKENIZER, llg.with_tokens(lark, (begin, end)))
    assert matcher.forced()[:3] == [begin, ord("{"), ord("}")]
    assert matcher.consume((begin, ord("{"), ord("}"), end)) == 4
    assert matcher.is_complete


def test_a_format_with_neither_calls_nor_text_and_a_text_that_is_no_format_are_refused() -> None:
    for text in ("{}", "[", '{"calls": 1}', "[" * 10_000):
        with pytest.raises(InvalidGrammar):
            grammar_of(Constraint(ConstraintKind.ANSWER, text, "tools"))
    with pytest.raises(InvalidGrammar, match="at most"):
        grammar_of(Constraint(ConstraintKind.ANSWER, "x" * (MAX_FORMAT_BYTES + 1), "tools"))


@pytest.mark.parametrize("members", [None, TAGS])
def test_a_long_list_of_values_is_enforced(members: Members | None) -> None:
    values = [f"value {number}" for number in range(4000)]
    constraint = calling(of({"a": {"enum": values}}, "a"), members)
    around = ("<f><a>", "</></f>") if members else ('<f>{"a": "', '"}</f>')
    assert allows(constraint, f"{around[0]}value 3999{around[1]}")
    assert not allows(constraint, f"{around[0]}value 4000{around[1]}")


def test_loose_schemas_bind_the_types_of_a_function_that_is_not_strict() -> None:
    looped = of({"a": {"$ref": "#/properties/a"}, "n": {"type": "integer", "maximum": 9}}, "n")
    lark = grammar_of(calling(looped, strict=False), loose=True)
    for text, allowed in (('<f>{"n": 10}</f>', True), ('<f>{"n": "x"}</f>', False)):
        matcher = llg.Matcher(TOKENIZER, lark)
        data = list(text.encode())
        assert (matcher.consume(data) == len(data)) is allowed
