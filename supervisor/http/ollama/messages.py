"""A conversation as Ollama's clients send it, in the form of the one history. Pure.

Values that are empty or null are often left out, and results of tools name their call by its id, by
the tool's name, or only by their place.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from supervisor.http.generation.history import (
    MAX_CALLS,
    Content,
    HistoryCall,
    Message,
    Role,
)


class OllamaMessage(Struct, frozen=True):
    """One turn of the conversation."""

    role: Role
    content: Content = None
    thinking: str | None = None
    images: Any = None
    tool_calls: Annotated[list[HistoryCall], Meta(max_length=MAX_CALLS)] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


def messages_of(given: Iterable[OllamaMessage]) -> list[Message]:
    """The same conversation. Each call has an id, and each result the id of its call."""
    messages: list[Message] = []
    open_calls: list[HistoryCall] = []
    for index, message in enumerate(given):
        if message.role == "tool":
            messages.append(_result(message, open_calls))
            continue
        calls = [
            structs.replace(call, id=call.id or f"call_{index}_{number}")
            for number, call in enumerate(message.tool_calls or ())
        ]
        open_calls = list(calls)
        messages.append(
            Message(
                message.role,
                message.content,
                images=message.images,
                tool_calls=calls or None,
                reasoning_content=message.thinking,
            )
        )
    return messages


def _result(message: OllamaMessage, open_calls: list[HistoryCall]) -> Message:
    """A result with the id of the first open call that it fits. That call is open no longer."""
    fitting = [call for call in open_calls if _fits(message, call)]
    if fitting:
        open_calls.remove(fitting[0])
    own_id = message.tool_call_id or (fitting[0].id if fitting else None)
    return Message("tool", message.content, message.tool_name, tool_call_id=own_id)


def _fits(result: OllamaMessage, call: HistoryCall) -> bool:
    if result.tool_call_id:
        return call.id == result.tool_call_id
    return not result.tool_name or (
        call.function is not None and call.function.name == result.tool_name
    )
