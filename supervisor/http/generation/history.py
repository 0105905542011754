"""A conversation's history as clients send it, and as the worker takes it.

Agents send null contents beside tool calls, contents as lists of parts, results in any order, and
roles by newer or older names. Unknown keys are ignored. A picture is refused in a message. In a
tool's result a note stands for it: a tool that shows pictures must not end a session. Many clients
send such pictures in a user's message right behind the result, which counts as a part of it. Pure.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, structs

from gpufc.chat import ChatMessage, ToolCall
from gpufc.errors import InvalidRequest

MAX_MESSAGES = 4096
"""Of one conversation: a body within its limit could hold far more empty ones."""
MAX_CALLS = 1024
"""Of one message."""

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]

_TEMPLATES_ROLES = {"developer": "system", "function": "tool"}
"""OpenAI's newer and older names for roles that templates know."""
TEXT_KEYS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}
"""The types of content parts that are text, and the key that holds it."""


class ContentPart(Struct, frozen=True):
    """A part of a message's content. Only text is served."""

    type: str
    text: str | None = None
    refusal: str | None = None


Content = str | list[ContentPart | str] | None


class CalledFunction(Struct, frozen=True):
    name: str
    arguments: str | dict[str, Any] | None = None


class CalledTool(Struct, frozen=True):
    name: str
    input: str | None = None


class HistoryCall(Struct, frozen=True):
    """A call that the model made earlier: of a function, or of a custom tool."""

    id: str | None = None
    function: CalledFunction | None = None
    custom: CalledTool | None = None


class Message(Struct, frozen=True):
    """One turn of the conversation, as a client sends it."""

    role: Role
    content: Content = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[HistoryCall], Meta(max_length=MAX_CALLS)] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    audio: Any = None
    images: Any = None


Messages = Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]


def history(messages: list[Message]) -> tuple[ChatMessage, ...]:
    """The conversation for the worker. Each result of a tool has its call's id and name, and
    results have the order of their calls. Raises `InvalidRequest`."""
    turns: list[ChatMessage] = []
    calls: tuple[ToolCall, ...] = ()
    names: dict[str, str] = {}
    results: list[ChatMessage] = []
    for index, message in enumerate(messages):
        turn = _turn(message, index, behind_result=bool(results))
        if turn.role == "tool":
            results.append(_of_call(turn, calls, names, len(results)))
            continue
        if results or calls or turn.tool_calls:
            turns += _in_order(results, calls)
            results, calls = [], turn.tool_calls
            names = {call.id: call.name for call in calls}
        turns.append(turn)
    turns += _in_order(results, calls)
    return tuple(turns)


def _turn(message: Message, index: int, *, behind_result: bool) -> ChatMessage:
    place = f"messages[{index}]"
    for name in ("audio", "images"):
        if getattr(message, name):
            raise InvalidRequest(f"{name} in a message is not supported", param=f"{place}.{name}")
    reasoning = message.reasoning_content
    if reasoning is None and isinstance(message.reasoning, str):
        reasoning = message.reasoning
    is_answer = message.role == "assistant"
    role = _TEMPLATES_ROLES.get(message.role, message.role)
    is_result = role == "tool" or (role == "user" and behind_result)
    content = _noted(message.content) if is_result else message.content
    return ChatMessage(
        role,
        _text(content, f"{place}.content") or message.refusal or "",
        message.name or None,
        tuple(_calls(message, index)) if is_answer else (),
        message.tool_call_id if message.role == "tool" else None,
        (reasoning or None) if is_answer else None,
    )


def _text(content: Content, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(
        part if isinstance(part, str) else _text_of(part, f"{place}[{index}]")
        for index, part in enumerate(content)
    )


def left_out(kind: str) -> str:
    """The note that stands in a tool's result for a part of this type, which is not text."""
    return f"[{kind[:50]} left out: the model reads text only]"


def _noted(content: Content) -> Content:
    """A result's content with a note for each part that is not text."""
    if content is None or isinstance(content, str):
        return content
    return [
        part if isinstance(part, str) or part.type in TEXT_KEYS else left_out(part.type)
        for part in content
    ]


def _text_of(part: ContentPart, place: str) -> str:
    key = TEXT_KEYS.get(part.type)
    if key is None:
        kind = part.type[:50]
        raise InvalidRequest(f"content of type {kind!r} is not supported", param=f"{place}.type")
    text: str | None = getattr(part, key)
    if text is None:
        raise InvalidRequest(f"a {part.type} part needs {key}", param=f"{place}.{key}")
    return text


def _calls(message: Message, index: int) -> list[ToolCall]:
    calls = []
    for number, call in enumerate(message.tool_calls or ()):
        own_id = call.id or f"call_{index}_{number}"
        if call.function is not None:
            calls.append(_function_call(own_id, call.function))
        elif call.custom is not None:
            given = msgspec.json.encode({"input": call.custom.input or ""}).decode()
            calls.append(ToolCall(own_id, call.custom.name, given))
        else:
            raise InvalidRequest(
                "a tool call needs a function",
                param=f"messages[{index}].tool_calls[{number}].function",
            )
    if message.function_call is not None:
        calls.append(_function_call(f"call_{index}_{len(calls)}", message.function_call))
    return calls


def _function_call(own_id: str, function: CalledFunction) -> ToolCall:
    given = function.arguments or "{}"
    text = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    return ToolCall(own_id, function.name, text)


def _of_call(
    result: ChatMessage, calls: tuple[ToolCall, ...], names: dict[str, str], number: int
) -> ChatMessage:
    """A result with the id and the name of its call; without an id, it is of the `number`-th.
    `names` are those of the calls by their ids."""
    if result.tool_call_id is None and number < len(calls):
        result = structs.replace(result, tool_call_id=calls[number].id)
    name = result.name or names.get(result.tool_call_id or "")
    return structs.replace(result, name=name)


def _in_order(results: list[ChatMessage], calls: tuple[ToolCall, ...]) -> list[ChatMessage]:
    """Results in the order of their calls: most templates show no ids."""
    places = {call.id: place for place, call in enumerate(calls)}
    return sorted(results, key=lambda one: places.get(one.tool_call_id or "", len(places)))
