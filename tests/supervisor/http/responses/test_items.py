"""The input's items as messages: turns, calls, results, references."""

from typing import Any

import msgspec
import pytest

from gpufc.errors import InvalidRequest
from supervisor.http.generation.history import CalledFunction, CalledTool, HistoryCall, Message
from supervisor.http.responses.fields import Item
from supervisor.http.responses.items import conversation, resolved, shortened

USER = {"role": "user", "content": "go"}


def items(*given: dict[str, Any]) -> list[Item]:
    return msgspec.convert(given, list[Item])


def messages(*given: dict[str, Any]) -> list[Message]:
    return conversation(items(*given))


def test_contents_are_texts_or_lists_of_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert messages(
        {"type": "message", "role": "developer", "content": "rules"},
        {"role": "system", "content": []},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ) == [
        Message("developer", "rules"),
        Message("system", ""),
        Message("user", "ab"),
        Message("assistant", "no"),
    ]


def test_a_note_stands_for_a_picture_in_a_result() -> None:
    output = [
        {"type": "input_text", "text": "See: "},
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
        {"stdout": "a"},
    ]
    given = {"type": "function_call_output", "call_id": "c1", "output": output}
    note = "[input_image left out: the model reads text only]"
    assert messages(given) == [Message("tool", f'See: {note}{{"stdout":"a"}}', tool_call_id="c1")]


def test_a_user_s_message_right_behind_a_result_is_a_part_of_it() -> None:
    output = {"type": "function_call_output", "call_id": "c1", "output": "r"}
    shown = {"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}
    note = "[input_image left out: the model reads text only]"
    assert messages(output, shown) == [
        Message("tool", "r", tool_call_id="c1"),
        Message("user", note),
    ]
    for between in ({"role": "assistant", "content": "ok"}, USER):
        with pytest.raises(InvalidRequest):
            messages(output, between, shown)


def test_reasoning_text_and_calls_in_a_row_are_one_turn() -> None:
    call = HistoryCall("c1", CalledFunction("f", '{"a": 1}'))
    patch = HistoryCall("c2", custom=CalledTool("patch", "*** Begin"))
    assert messages(
        USER,
        {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"role": "assistant", "content": "I call"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "*** Begin"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"},
        {"type": "reasoning", "summary": [], "encrypted_content": None},
        {"role": "assistant", "content": "ok"},
    ) == [
        Message("user", "go"),
        Message("assistant", "I call", tool_calls=[call, patch], reasoning_content="hm"),
        Message("tool", "1", tool_call_id="c1"),
        Message("tool", "done", tool_call_id="c2"),
        Message("assistant", "ok"),
    ]


def test_reasoning_goes_before_its_summary_and_a_turn_of_reasoning_alone_is_none() -> None:
    both = {
        "type": "reasoning",
        "content": [{"type": "reasoning_text", "text": "all"}],
        "summary": [{"type": "summary_text", "text": "short"}],
    }
    summaries = [{"type": "summary_text", "text": text} for text in ("one", "two")]
    assert messages(both, USER) == [Message("user", "go")]
    assert messages(both, {"role": "assistant", "content": "a"}) == [
        Message("assistant", "a", reasoning_content="all")
    ]
    (turn,) = messages(
        {"type": "reasoning", "summary": summaries}, {"role": "assistant", "content": "a"}
    )
    assert turn.reasoning_content == "one\n\ntwo"


def test_a_call_in_a_namespace_has_the_name_that_the_model_is_offered() -> None:
    (turn,) = messages({"type": "function_call", "namespace": "notes", "name": "add"})
    assert turn.tool_calls == [HistoryCall(None, CalledFunction("notes__add", "{}"))]


def test_a_result_may_be_a_list_of_texts_or_any_value() -> None:
    listed = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    results = messages(
        {"type": "function_call_output", "call_id": "c", "output": listed},
        {"type": "function_call_output", "call_id": "c", "output": {"a": 1}},
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "x"}]},
        {"type": "local_shell_call_output", "id": "c", "output": "y"},
    )
    assert [result.content for result in results] == ["ab", '{"a":1}', '{"stdout":"x"}', "y"]
    assert {result.tool_call_id for result in results} == {"c"}


def test_calls_of_a_client_s_own_shell_are_calls() -> None:
    action = {"type": "exec", "command": ["ls"]}
    (turn,) = messages({"type": "local_shell_call", "call_id": "c", "action": action})
    given = '{"type":"exec","command":["ls"]}'
    assert turn.tool_calls == [HistoryCall("c", CalledFunction("local_shell", given))]


def test_the_history_of_hosted_tools_is_passed_over() -> None:
    hosted = ["web_search_call", "file_search_call", "image_generation_call", "mcp_list_tools"]
    others = ["computer_call", "compaction", "tool_search_output", "of_next_year"]
    given = [{"type": kind, "id": "x", "status": "completed"} for kind in [*hosted, *others]]
    assert messages(USER, *given) == [Message("user", "go")]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}, "content[0]"),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}, "content[0]"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "content[0].text"),
        ({"type": "message", "role": "critic", "content": "x"}, "role"),
        ({"type": "message", "content": "x"}, "role"),
        ({"type": "function_call", "call_id": "c"}, "name"),
        (
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text"}]},
            "output[0].text",
        ),
    ],
)
def test_what_cannot_be_served_is_named(item: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        messages(USER, item)
    assert raised.value.param == f"input[1].{param}"


def test_references_stand_for_remembered_items() -> None:
    (known,) = items({"type": "message", "id": "msg_1", "role": "assistant", "content": "a"})
    remembered = {"msg_1": known}
    given = items({"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}, USER)
    assert resolved(given, remembered.get) == [known, known, given[2]]


def test_only_forgotten_reasoning_may_be_referred_to() -> None:
    assert resolved(items({"type": "item_reference", "id": "rs_1"}), {}.get) == []
    for item, place in (({"type": "item_reference", "id": "msg_1"}, "id"), ({}, "type")):
        with pytest.raises(InvalidRequest) as raised:
            resolved(items(item), {}.get)
        assert raised.value.param == f"input[0].{place}"


def test_a_conversation_is_shortened_turn_by_turn() -> None:
    turns = [Message("user", str(n)) for n in range(5)]
    first = [Message("system", "s"), Message("developer", "d")]
    assert shortened([*first, *turns]) == [*first, *turns[2:]]
    assert shortened([*first, *turns[:2]]) == [*first, turns[1]]
    assert shortened([*first, turns[0], Message("assistant", "a")]) is None
    answered = [turns[0], Message("assistant", "a"), turns[1], Message("tool", "r")]
    assert shortened(answered) == answered[2:]
    assert shortened(first) is None
