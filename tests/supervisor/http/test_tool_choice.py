"""`tool_choice` in every form, and the constraint that keeps it."""

from typing import Any

import msgspec
import pytest

from gpufc.answer_format import MAX_CALLS, AnswerFormat
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import InvalidGrammar, InvalidRequest
from gpufc.protocol import FinishReason
from supervisor.answers.whole import whole_answer
from supervisor.dispatch.request import Reading
from supervisor.http.generation.chat import ChatFields
from supervisor.http.generation.reading import reading_of
from supervisor.http.generation.tools import MAX_GUIDED_BYTES, OfferedTools, offered
from tests.fakes.facts import model_facts

HERMES = "<tool_call></tool_call>"
THINKING = HERMES + "<think>"
LLAMA = '<|start_header_id|> "parameters"'
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
TEXT = Constraint(ConstraintKind.JSON_SCHEMA, '{"type": "integer"}', "response_format")


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **more}}


def offer(choice: Any, *tools: dict[str, Any]) -> OfferedTools:
    given = list(tools) if tools else [tool("f"), tool("g")]
    body = msgspec.convert(
        {"messages": [{"role": "user", "content": "x"}], "tools": given, "tool_choice": choice},
        ChatFields,
    )
    return offered(body.tools, body.tool_choice)


def read(
    tools: OfferedTools,
    template: str = HERMES,
    *,
    opening: str = "",
    parallel: bool = True,
    constraint: Constraint | None = None,
) -> Reading:
    facts = model_facts(chat_template=template)
    return reading_of(lambda: facts, tools, parallel=parallel, constraint=constraint)(opening)


def guided(*args: Any, **kwargs: Any) -> AnswerFormat:
    constraint = read(*args, **kwargs).constraint
    assert constraint is not None
    assert constraint.kind is ConstraintKind.ANSWER
    return msgspec.json.decode(constraint.text, type=AnswerFormat)


def names(answer: AnswerFormat) -> list[str]:
    return [function.name for function in answer.calls.functions] if answer.calls else []


ALLOWED = [{"type": "function", "function": {"name": "g"}}]


@pytest.mark.parametrize(
    ("choice", "callable_"),
    [
        ("required", ["f", "g"]),
        ("any", ["f", "g"]),
        ({"type": "any"}, ["f", "g"]),
        ({"type": None, "function": {"name": "g"}, "name": None}, ["g"]),
        ({"type": "required"}, ["f", "g"]),
        ({"type": "function", "function": {"name": "f"}}, ["f"]),
        ({"type": "function", "name": "f"}, ["f"]),
        ({"type": "tool", "name": "f"}, ["f"]),
        ({"function": {"name": "f"}}, ["f"]),
        ({"name": "f"}, ["f"]),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": ALLOWED}}, ["g"]),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "g"}],
            },
            ["g"],
        ),
    ],
)
def test_a_choice_that_demands_a_call_guides_the_answer(choice: Any, callable_: list[str]) -> None:
    answer = guided(offer(choice))
    assert names(answer) == callable_
    assert answer.text is None


@pytest.mark.parametrize("choice", [None, "auto", {"type": "auto"}, "none", {"type": "none"}])
def test_a_choice_that_demands_no_call_leaves_the_answer_free(choice: Any) -> None:
    assert read(offer(choice)).constraint is None


@pytest.mark.parametrize(
    "choice",
    [
        "sometimes",
        {"type": "function"},
        {"type": "function", "function": {"name": "h"}},
        {"type": "file_search"},
        {"type": "allowed_tools", "allowed_tools": {"mode": "never", "tools": ALLOWED}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}},
    ],
)
def test_a_choice_that_cannot_be_kept_is_refused(choice: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        offer(choice)
    assert caught.value.param == "tool_choice"


def test_a_named_function_is_called_once_and_a_required_call_not_for_ever() -> None:
    required, named = offer("required"), offer({"type": "function", "name": "f"})
    assert [
        answer.calls.most if answer.calls else None
        for answer in (guided(required), guided(named), guided(required, parallel=False))
    ] == [MAX_CALLS, 1, 1]


def test_the_model_is_told_of_every_function_also_of_those_it_must_not_call() -> None:
    found = offer({"type": "function", "name": "f"})
    assert [function.name for function in found.functions] == ["f", "g"]


def test_a_strict_function_binds_calls_from_their_first_marker() -> None:
    answer = guided(offer("auto", tool("f", strict=True), tool("g")))
    assert (answer.trigger, answer.text is not None) == ("<tool_call>", True)
    assert [function.strict for function in answer.calls.functions] == [True, False]  # type: ignore[union-attr]


def test_a_model_that_thinks_may_think_before_a_forced_call() -> None:
    tools = offer("required")
    assert guided(tools).spans == ()
    assert [span.begin for span in guided(tools, THINKING).spans] == ["<think>"]
    opened = guided(tools, THINKING, opening="<|im_start|>assistant\n<think>\n")
    assert opened.inside == "</think>"


def test_reasoning_comes_before_json_that_a_response_format_demands() -> None:
    answer = guided(OfferedTools(), THINKING, constraint=TEXT)
    assert answer.text is not None
    assert (answer.text.schema, names(answer)) == ({"type": "integer"}, [])
    assert read(OfferedTools(), constraint=TEXT).constraint is None


def test_a_response_format_leaves_calls_possible() -> None:
    answer = guided(offer("auto"), constraint=TEXT)
    assert answer.text is not None
    assert (answer.text.schema, answer.trigger) == ({"type": "integer"}, "")
    assert names(answer) == ["f", "g"]
    # there a call may begin like the JSON of the answer
    assert read(offer("auto"), LLAMA, constraint=TEXT).constraint is None


@pytest.mark.parametrize(
    "given",
    [
        {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": True},
        {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True},
    ],
)
def test_a_function_may_stand_at_the_tool_s_own_level(given: dict[str, Any]) -> None:
    assert offer(None, given) == offer(None, tool("f", description="d", strict=True))


ODD = {
    "name": 5,
    "description": ["d"],
    "parameters": [],
    "input_schema": "none",
    "strict": "no",
}


@pytest.mark.parametrize("member", ODD)
def test_members_of_a_tool_s_own_level_are_checked_in_functions_only(member: str) -> None:
    odd = {"name": "f", member: ODD[member]}
    assert offer(None, {"type": "x", **odd}).skipped == ("x",)
    beside = offer(None, {**tool("f"), member: ODD[member]})
    assert [function.name for function in beside.functions] == ["f"]
    with pytest.raises(InvalidRequest, match=member) as caught:
        offer(None, {"type": "function", **odd})
    assert caught.value.param == "tools[0]"


def test_a_function_without_parameters_has_no_arguments() -> None:
    bare = {"type": "function", "function": {"name": "f"}}
    [function] = offer("required", bare).guided
    assert function.schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("tools", "error"),
    [
        ([tool("a name")], InvalidRequest),
        ([tool("f", description="x" * MAX_GUIDED_BYTES)], InvalidGrammar),
    ],
)
def test_a_function_that_no_grammar_can_call_is_refused(
    tools: list[dict[str, Any]], error: type[InvalidRequest]
) -> None:
    with pytest.raises(error) as caught:
        offer("required", *tools)
    assert caught.value.param == "tools"
    auto = offer("auto", *tools)
    assert auto.functions
    assert read(auto, constraint=TEXT).constraint is None  # the text's own one holds


def test_an_answer_that_must_be_calls_has_no_text_though_a_limit_cuts_it_in_a_marker() -> None:
    reading = read(offer("required"))
    cut = '<tool_call>\n{"name": "f", "arguments": {"a": "b"}}\n</tool_ca'
    answer = whole_answer([cut], FinishReason.LENGTH, reading.new_parser)
    assert (answer.text, [call.name for call in answer.calls]) == ("", ["f"])


def test_an_answer_s_format_is_made_once_for_all_of_its_sequences() -> None:
    facts = model_facts(chat_template=HERMES)
    reading = reading_of(lambda: facts, offer("required"), parallel=True)
    assert reading("one prompt") is reading("another one")


def test_a_template_sees_no_null_keyword_of_a_schema() -> None:
    schema = {"type": "object", "required": None, "properties": {"required": {"const": None}}}
    [function] = offer("auto", tool("f", parameters=schema)).functions
    assert function.parameters == {"type": "object", "properties": {"required": {"const": None}}}


def test_allowed_tools_without_a_mode_or_tools_may_be_null() -> None:
    choice = {"type": "allowed_tools", "mode": None, "tools": ALLOWED, "allowed_tools": None}
    found = offer(choice)
    assert ([one.name for one in found.functions], found.must_call) == (["g"], False)
    assert offer({"type": "allowed_tools", "mode": None, "tools": None}).functions == ()
