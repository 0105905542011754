"""A conversation as Ollama's clients send it, in the form of the one history. Pure.

Values that are empty or null are often left out, and results of tools name their call by its id, by
the tool's name, or only by their place.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from supervisor.http.generation.history import (
    MAX_CALLS,
    Content,
    HistoryCall,
    Message,
    Role,
    left_out,
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
    open_calls = _OpenCalls(())
    for index, message in enumerate(given):
        if message.role == "tool":
            messages.append(_result(message, open_calls))
            continue
        calls = [
            structs.replace(call, id=call.id or f"call_{index}_{number}")
            for number, call in enumerate(message.tool_calls or ())
        ]
        open_calls = _OpenCalls(calls)
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


def _result(message: OllamaMessage, open_calls: "_OpenCalls") -> Message:
    """A result with the id of the first open call that it fits. That call is open no longer."""
    if message.tool_call_id:
        open_calls.close(open_calls.by_id, message.tool_call_id)
        own_id: str | None = message.tool_call_id
    elif message.tool_name:
        own_id = open_calls.close(open_calls.by_name, message.tool_name)
    else:
        own_id = open_calls.close(open_calls.all, None)
    content = message.content
    if message.images:
        content = [*([content] if isinstance(content, str) else content or ()), left_out("images")]
    return Message("tool", content, message.tool_name, tool_call_id=own_id)


class _OpenCalls:
    """The calls of one turn that have no result yet, to be found by their ids and names."""

    def __init__(self, calls: Sequence[HistoryCall]) -> None:
        self._ids = [call.id for call in calls]
        self._is_open = [True] * len(calls)
        self.all: dict[str | None, deque[int]] = {None: deque(range(len(calls)))}
        self.by_id: dict[str | None, deque[int]] = {}
        self.by_name: dict[str | None, deque[int]] = {}
        for number, call in enumerate(calls):
            self.by_id.setdefault(call.id, deque()).append(number)
            if call.function is not None:
                self.by_name.setdefault(call.function.name, deque()).append(number)

    def close(self, found_by: dict[str | None, deque[int]], key: str | None) -> str | None:
        """The id of the first open call under `key`, which is open no longer. None without one."""
        places = found_by.get(key, deque())
        while places:
            number = places.popleft()
            if self._is_open[number]:
                self._is_open[number] = False
                return self._ids[number]
        return None
