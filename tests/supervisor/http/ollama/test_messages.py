"""Results of tools find their calls, however little a client says about them."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gpufc.chat import ChatMessage
from gpufc.errors import InvalidRequest
from supervisor.http.generation.history import history
from supervisor.http.ollama.messages import OllamaMessage, messages_of
from tests.growth import assert_linear


def read(*messages: dict[str, Any]) -> tuple[ChatMessage, ...]:
    return history(messages_of(msgspec.convert(list(messages), list[OllamaMessage])))


def called(name: str, own_id: str | None = None) -> dict[str, Any]:
    named = {"function": {"name": name, "arguments": {"of": name}}}
    return named if own_id is None else named | {"id": own_id, "type": "function"}


def result(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, **fields}


TWO_CALLS = {"role": "assistant", "tool_calls": [called("f"), called("g")]}


def test_a_message_without_content_is_an_empty_turn() -> None:
    (turn,) = read({"role": "assistant", "thinking": "Hm.", "tool_calls": None})
    assert (turn.content, turn.reasoning_content, turn.tool_calls) == ("", "Hm.", ())


def test_arguments_are_objects_and_calls_get_ids() -> None:
    (turn,) = read(TWO_CALLS)
    assert [(call.name, call.arguments) for call in turn.tool_calls] == [
        ("f", '{"of":"f"}'),
        ("g", '{"of":"g"}'),
    ]
    assert len({call.id for call in turn.tool_calls}) == 2


@pytest.mark.parametrize(
    "results",
    [
        [result("of f"), result("of g")],
        [result("of f", tool_name="f"), result("of g", tool_name="g")],
        [result("of g", tool_name="g"), result("of f", tool_name="f")],
        [result("of g", tool_name="g"), result("of f")],
    ],
)
def test_results_stand_behind_their_calls_in_the_calls_order(results: list[dict[str, Any]]) -> None:
    turn, *found = read(TWO_CALLS, *results)
    ids = [call.id for call in turn.tool_calls]
    assert [(one.content, one.name, one.tool_call_id) for one in found] == [
        ("of f", "f", ids[0]),
        ("of g", "g", ids[1]),
    ]


def test_results_of_one_tool_belong_to_its_calls_in_turn() -> None:
    twice = {"role": "assistant", "tool_calls": [called("f"), called("f")]}
    turn, *found = read(twice, result("1", tool_name="f"), result("2", tool_name="f"))
    assert [one.tool_call_id for one in found] == [call.id for call in turn.tool_calls]
    assert [one.content for one in found] == ["1", "2"]


def test_ids_of_the_client_are_kept() -> None:
    calls = {"role": "assistant", "tool_calls": [called("f", "x"), called("g", "y")]}
    turn, *found = read(
        calls,
        result("of g", tool_call_id="y", tool_name="g"),
        result("of f", tool_call_id="x"),
    )
    assert [call.id for call in turn.tool_calls] == ["x", "y"]
    assert [(one.content, one.tool_call_id) for one in found] == [("of f", "x"), ("of g", "y")]


def test_a_result_without_any_call_stays_a_result() -> None:
    (turn,) = read(result("lost", tool_name="f"))
    assert (turn.role, turn.content, turn.name, turn.tool_call_id) == ("tool", "lost", "f", None)


def test_images_are_refused_and_an_empty_list_of_them_is_none() -> None:
    assert read({"role": "user", "content": "a", "images": []})[0].content == "a"
    with pytest.raises(InvalidRequest, match="images"):
        read({"role": "user", "content": "a", "images": ["aGk="]})


@pytest.mark.parametrize("content", ["See: ", None, ["See: "]])
def test_a_note_stands_for_a_picture_in_a_result(content: Any) -> None:
    (turn,) = read(result(content, images=["aGk="]))
    note = "[images left out: the model reads text only]"
    assert turn.content == ("See: " if content else "") + note


def test_a_turn_of_many_calls_and_results_is_read_in_linear_time() -> None:
    """All of it is read in the event loop."""

    def turn(n: int) -> Callable[[], object]:
        calls = [called(f"f{number}", f"c{number}") for number in range(n)]
        unknown = [result("x", tool_call_id="none", tool_name="none")] * 4 * n
        return lambda: read({"role": "assistant", "tool_calls": calls}, *unknown)

    assert_linear(turn, 100)
