"""Conversations as agents send them, and as the worker gets them."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gpufc.chat import ChatMessage, ToolCall
from gpufc.errors import InvalidRequest
from supervisor.http.generation.chat import ChatFields
from supervisor.http.generation.history import history
from supervisor.http.generation.tools import offered
from tests.growth import assert_linear


def read(*messages: dict[str, Any], **fields: Any) -> ChatFields:
    body = msgspec.json.encode({"messages": messages or [{"role": "user"}], **fields})
    return msgspec.json.decode(body, type=ChatFields)


def turns(*messages: dict[str, Any]) -> tuple[ChatMessage, ...]:
    return history(read(*messages).messages)


def call(name: str, own_id: str | None, arguments: Any = '{"a":1}') -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": own_id, "type": "function", "function": function}


@pytest.mark.parametrize("content", [None, "", [], [{"type": "text", "text": ""}]])
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_an_empty_content_is_an_empty_turn(role: str, content: Any) -> None:
    assert turns({"role": role, "content": content}) == (ChatMessage(role, ""),)
    assert turns({"role": role}) == (ChatMessage(role, ""),)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
        {"type": "input_text", "text": "b"},
        {"type": "output_text", "text": "b", "annotations": []},
        {"type": "refusal", "refusal": "b"},
        "b",
    ],
)
def test_parts_that_are_text_are_joined(part: Any) -> None:
    content = [{"type": "text", "text": "a"}, part]
    assert turns({"role": "user", "content": content}) == (ChatMessage("user", "ab"),)


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize("role", ["tool", "function"])
def test_a_note_stands_for_a_picture_in_a_result(role: str) -> None:
    sent = {"role": role, "content": [{"type": "text", "text": "See: "}, PICTURE]}
    (turn,) = turns(sent)
    assert turn.content == "See: [image_url left out: the model reads text only]"


def test_a_user_s_message_right_behind_a_result_is_a_part_of_it() -> None:
    """LiteLLM, Copilot and others send the pictures of a result so."""
    called = {"role": "assistant", "tool_calls": [call("f", "c1")]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "r"}
    shown = {"role": "user", "content": [{"type": "text", "text": "Output: "}, PICTURE]}
    found = turns({"role": "user", "content": "go"}, called, result, shown)
    assert found[-1].content == "Output: [image_url left out: the model reads text only]"
    for between in ({"role": "assistant", "content": "ok"}, {"role": "user", "content": "and"}):
        with pytest.raises(InvalidRequest) as refusal:
            turns(called, result, between, shown)
        assert refusal.value.param == "messages[3].content[1].type"


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_picture_in_a_message_is_refused(role: str) -> None:
    with pytest.raises(InvalidRequest, match="image_url") as refusal:
        turns({"role": role, "content": ["See: ", PICTURE]})
    assert refusal.value.param == "messages[0].content[1].type"


def test_roles_have_the_names_that_templates_know() -> None:
    messages = ({"role": "developer", "content": "x"}, {"role": "function", "content": "y"})
    assert [turn.role for turn in turns(*messages)] == ["system", "tool"]


def test_calls_beside_a_null_content_are_kept() -> None:
    sent = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "Look it up.",
        "tool_calls": [call("f", "c1"), call("g", "c2", {"b": 2}), call("h", None, "")],
    }
    (turn,) = turns(sent)
    assert turn.content == ""
    assert turn.reasoning_content == "Look it up."
    assert turn.tool_calls == (
        ToolCall("c1", "f", '{"a":1}'),
        ToolCall("c2", "g", '{"b":2}'),
        ToolCall("call_0_2", "h", "{}"),
    )


def test_custom_and_older_calls_are_calls_of_functions() -> None:
    custom = {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "diff"}}
    older = {"name": "f", "arguments": "{}"}
    sent = {"role": "assistant", "tool_calls": [custom], "function_call": older}
    (turn,) = turns(sent)
    assert turn.tool_calls == (
        ToolCall("c1", "patch", '{"input":"diff"}'),
        ToolCall("call_0_1", "f", "{}"),
    )


def test_results_stand_in_the_order_of_their_calls_and_have_their_names() -> None:
    found = turns(
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [call("f", "c1"), call("g", "c2")]},
        {"role": "tool", "tool_call_id": "c2", "content": "second"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "first"}]},
        {"role": "user", "content": "y"},
    )
    assert [turn.content for turn in found] == ["x", "", "first", "second", "y"]
    assert [turn.name for turn in found[2:4]] == ["f", "g"]
    assert [turn.tool_call_id for turn in found[2:4]] == ["c1", "c2"]


def test_results_without_an_id_belong_to_the_calls_in_order() -> None:
    found = turns(
        {"role": "assistant", "tool_calls": [call("f", "c1"), call("g", "c2")]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    )
    assert [(turn.tool_call_id, turn.name) for turn in found[1:]] == [("c1", "f"), ("c2", "g")]


def test_a_result_of_an_unknown_call_is_kept() -> None:
    found = turns({"role": "tool", "tool_call_id": "lost", "content": "x"})
    assert found == (ChatMessage("tool", "x", tool_call_id="lost"),)


TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "f", "description": None, "strict": None}},
    {"type": "web_search", "filters": {}},
    {"type": "function", "function": {"name": "g", "description": "G", "strict": True}},
    {"type": "custom\r\nx", "custom": {"name": "patch"}},
]


def test_a_turn_of_many_calls_and_results_is_read_in_linear_time() -> None:
    """All of it is read in the event loop."""

    def turn(n: int) -> Callable[[], object]:
        calls = [call("f", f"c{number}") for number in range(n)]
        results = [
            {"role": "tool", "tool_call_id": f"c{at % n}", "content": "x"} for at in range(4 * n)
        ]
        body = read({"role": "assistant", "tool_calls": calls}, *results)
        return lambda: history(body.messages)

    assert_linear(turn, 100)


def test_functions_are_offered_in_the_form_of_templates() -> None:
    found = offered(read(tools=TOOLS).tools, "auto")
    nothing = {"type": "object", "properties": {}}
    assert msgspec.json.decode(found.json) == [
        {"type": "function", "function": {"name": "f", "parameters": nothing}},
        {"type": "function", "function": {"name": "g", "description": "G", "parameters": nothing}},
    ]


def test_tools_that_cannot_be_served_are_named_in_a_header() -> None:
    found = offered(read(tools=TOOLS).tools, None)
    assert found.headers == {"x-gpufc-skipped-tools": "web_search, custom__x"}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["f", "g"]),
        ("auto", ["f", "g"]),
        ("none", []),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "g"}}],
                },
            },
            ["g"],
        ),
    ],
)
def test_a_choice_leaves_some_of_the_tools(choice: Any, names: list[str]) -> None:
    body = read(tools=TOOLS, tool_choice=choice)
    found = offered(body.tools, body.tool_choice)
    assert [function.name for function in found.functions] == names
