"""Conversations as Anthropic's clients send them, and the turns that the worker gets."""

from typing import Any, get_args

import msgspec
import pytest
from anthropic.types.beta import BetaContentBlockParam
from typing_extensions import get_type_hints, is_typeddict

from gpufc.chat import ChatMessage, ToolCall
from gpufc.errors import InvalidRequest
from supervisor.http.anthropic.blocks import PASSED_OVER, Blocks
from supervisor.http.anthropic.conversation import InputMessage, conversation
from supervisor.http.generation.history import history

USER = {"role": "user", "content": "hi"}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw"}}
PDF = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral", "ttl": "1h"}}


def call(own_id: str, name: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": own_id, "name": name, "input": given}


def result(own_id: str, content: Any = None, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": own_id, "content": content, **fields}


def turns(*messages: dict[str, Any], system: Any = None) -> tuple[ChatMessage, ...]:
    """The turns that go to a worker."""
    given = msgspec.convert(list(messages), type=list[InputMessage])
    return history(conversation(msgspec.convert(system, type=Blocks), given))


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("Be kind.", "Be kind."),
        ([text("Be kind."), text("Be brief.")], "Be kind.\n\nBe brief."),
        ([text("x-anthropic-billing-header: cch=1f2e3;"), text("Be kind.")], "Be kind."),
        ([text("Be kind."), text("x-anthropic-a")], "Be kind.\n\nx-anthropic-a"),
    ],
)
def test_the_system_text_comes_first_without_its_changing_block(system: Any, said: str) -> None:
    assert turns(USER, system=system) == (ChatMessage("system", said), ChatMessage("user", "hi"))


@pytest.mark.parametrize("system", [None, "", [], [text("x-anthropic-billing-header: cch=1;")]])
def test_without_a_system_text_there_is_no_system_turn(system: Any) -> None:
    assert turns(USER, system=system) == (ChatMessage("user", "hi"),)


def test_system_messages_keep_their_places() -> None:
    found = turns(
        {"role": "system", "content": "a"},
        USER,
        {"role": "system", "content": [text("b")]},
        {"role": "assistant", "content": "c"},
        {"role": "system", "content": "d"},
    )
    assert [(turn.role, turn.content) for turn in found] == [
        ("system", "a"), ("user", "hi"), ("system", "b"), ("assistant", "c"), ("system", "d"),
    ]  # fmt: skip


@pytest.mark.parametrize("content", [None, "", [], [{"type": "redacted_thinking", "data": "b"}]])
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_message_without_content_adds_nothing(role: str, content: Any) -> None:
    empty = {"role": role, "content": content, "output_config": {"effort": "low"}}
    assert turns(empty, USER, empty) == (ChatMessage("user", "hi"),)
    with pytest.raises(InvalidRequest, match="messages: no message has content"):
        turns(empty)


def test_adjoining_messages_of_one_role_are_one_turn() -> None:
    found = turns(
        USER,
        {"role": "user", "content": [text("you")]},
        {"role": "assistant", "content": [call("t1", "f")]},
        {"role": "assistant", "content": [text("And"), call("t2", "g")]},
        {"role": "user", "content": [result("t2", "2")]},
        {"role": "user", "content": [result("t1", "1"), text("Go on.")]},
    )
    assert [turn.content for turn in found] == ["hi\n\nyou", "And", "1", "2", "Go on."]
    assert [one.id for one in found[1].tool_calls] == ["t1", "t2"]
    assert [turn.name for turn in found[2:4]] == ["f", "g"]


def test_an_answer_has_its_text_its_reasoning_and_its_calls() -> None:
    (_, turn) = turns(
        USER,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "The file is needed.", "signature": ""},
                text("Reading."),
                {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"q": 1}},
                {"type": "web_search_tool_result", "tool_use_id": "s1", "content": {"type": "x"}},
                call("t1", "ReadFile", path="a.txt"),
            ],
        },
    )
    assert turn == ChatMessage(
        "assistant",
        "Reading.",
        tool_calls=(ToolCall("t1", "ReadFile", '{"path":"a.txt"}'),),
        reasoning_content="The file is needed.",
    )


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        ("done", {}, "done"),
        ([text("a"), text("b")], {}, "a\n\nb"),
        (text("a"), {}, "a"),
        (None, {}, ""),
        ([], {}, ""),
        ("no", {"is_error": True}, "Error: no"),
        ("no", {"is_error": False}, "no"),
        ([text("a"), PNG], {}, "a\n\n[image left out: the model reads text only]"),
        ([PDF], {}, "[document left out: the model reads text only]"),
        ([{"type": "tool_reference", "tool_name": "f"}], {}, "[tool: f]"),
        ([{"type": "browser_state"}], {}, "[browser_state left out: the model reads text only]"),
    ],
)
def test_a_tool_s_result_is_text_and_never_an_error(content: Any, fields: Any, said: str) -> None:
    found = turns(
        USER,
        {"role": "assistant", "content": [call("t1", "f")]},
        {"role": "user", "content": [text("Go on."), result("t1", content, **fields)]},
    )
    assert found[2:] == (
        ChatMessage("tool", said, name="f", tool_call_id="t1"),
        ChatMessage("user", "Go on."),
    )


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"source": {"type": "text", "media_type": "text/plain", "data": "notes"}}, "notes"),
        ({"source": {"type": "content", "content": "notes"}, "title": "T"}, "T\nnotes"),
        (
            {"source": {"type": "content", "content": [text("a"), text("b")]}, "context": "C"},
            "C\na\n\nb",
        ),
        ({"type": "search_result", "source": "u", "title": "T", "content": [text("a")]}, "T\na"),
    ],
)
def test_documents_of_text_are_read(block: dict[str, Any], said: str) -> None:
    assert turns({"role": "user", "content": [{"type": "document", **block}]}) == (
        ChatMessage("user", said),
    )


@pytest.mark.parametrize(
    "block",
    [
        PNG,
        PDF,
        {"type": "document", "source": {"type": "file", "file_id": "f1"}},
        {"type": "document", "source": {"type": "content", "content": [PNG]}},
        {"type": "tool_addition", "tools": []},
        {"type": "audio"},
    ],
)
def test_another_block_is_refused_with_its_place(block: dict[str, Any]) -> None:
    kind = block["type"]
    with pytest.raises(InvalidRequest, match=rf"messages\[1\]\.content\[1\]: .*'{kind}'") as caught:
        turns(USER, {"role": "user", "content": [text("See"), block]})
    assert caught.value.param == "messages[1].content[1]"


def test_a_call_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="name"):
        turns(
            USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "input": {}}]}
        )


READ = {"text", "search_result", "document", "thinking", "tool_use", "tool_result"}
REFUSED = {"image", "tool_addition", "tool_removal"}


def test_every_kind_of_the_sdk_is_read_passed_over_or_refused_on_purpose() -> None:
    kinds = {
        get_args(get_type_hints(kind)["type"])[0]
        for kind in get_args(BetaContentBlockParam)
        if is_typeddict(kind)
    }
    assert kinds == READ | REFUSED | PASSED_OVER
