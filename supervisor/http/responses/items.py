"""The input's items as the messages of a chat. Pure.

Reasoning, texts and calls of the assistant in a row are one turn. Calls of tools that a client runs
itself are calls, with their outputs as results. Other items are only the history of tools that
OpenAI runs: they are passed over. A picture in a message is refused; in a result a note stands for
it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gpufc.errors import InvalidRequest
from supervisor.http.generation.history import (
    TEXT_KEYS,
    CalledFunction,
    CalledTool,
    HistoryCall,
    Message,
    Role,
    left_out,
)
from supervisor.http.responses.fields import Item
from supervisor.http.responses.tools import flat_name

ROLES: dict[str, Role] = {"system": "system", "developer": "developer", "user": "user"}
"""The roles of messages that are no answers."""

PART_KEYS = TEXT_KEYS | {"summary_text": "text", "reasoning_text": "text"}
"""The types of parts that are text, and the key that holds it."""

CLIENT_CALLS = {
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
    "apply_patch_call": ("apply_patch", "operation"),
}
"""Calls of tools that a client runs itself: the tool's name, and the key of its arguments."""

RESULTS = frozenset(
    {
        "function_call_output",
        "custom_tool_call_output",
        "local_shell_call_output",
        "shell_call_output",
        "apply_patch_call_output",
    }
)

FindItem = Callable[[str], Item | None]
"""The remembered item of an id."""


def resolved(items: Sequence[Item], find: FindItem) -> list[Item]:
    """The items with references replaced. A reference to forgotten reasoning is passed over.

    Raises `InvalidRequest` for any other reference that leads nowhere.
    """
    found: list[Item] = []
    for index, item in enumerate(items):
        if item.kind is None:
            raise InvalidRequest("an item needs a type", param=f"input[{index}].type")
        if item.kind != "item_reference":
            found.append(item)
            continue
        known = find(item.id or "")
        if known is not None:
            found.append(known)
        elif not (item.id or "").startswith("rs_"):
            raise InvalidRequest(
                f"There is no item {(item.id or '')[:80]!r}; send the item itself",
                param=f"input[{index}].id",
            )
    return found


def conversation(items: Sequence[Item]) -> list[Message]:
    """The messages that the items mean. Raises `InvalidRequest`."""
    made = _Conversation()
    for index, item in enumerate(items):
        made.add(item, f"input[{index}]")
    made.end_turn()
    return made.messages


class _Conversation:
    """The messages so far, and the assistant's turn that the latest items belong to."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._reasoning: list[str] = []
        self._texts: list[str] = []
        self._calls: list[HistoryCall] = []

    def add(self, item: Item, place: str) -> None:
        kind = item.kind or ""
        if kind == "message":
            self._message(item, place)
        elif kind == "reasoning":
            self._reasoning.append(reasoning_text(item, place))
        elif kind in ("function_call", "custom_tool_call"):
            self._calls.append(_call(item, place))
        elif kind in CLIENT_CALLS:
            name, key = CLIENT_CALLS[kind]
            arguments = _json(getattr(item, key) or {})
            self._calls.append(HistoryCall(item.call_id, CalledFunction(name, arguments)))
        elif kind in RESULTS:
            self.end_turn()
            result = text_of(_noted(item.output), f"{place}.output")
            called = item.call_id or item.id
            self.messages.append(Message("tool", result, tool_call_id=called))

    def end_turn(self) -> None:
        """What comes next is no part of the assistant's turn. Reasoning alone is no turn."""
        if self._texts or self._calls:
            self.messages.append(
                Message(
                    "assistant",
                    "\n\n".join(self._texts),
                    tool_calls=self._calls or None,
                    reasoning_content="\n\n".join(filter(None, self._reasoning)) or None,
                )
            )
        self._reasoning, self._texts, self._calls = [], [], []

    @property
    def _is_behind_result(self) -> bool:
        """Whether a user's message would be a part of the result before it: clients send pictures
        of a tool's result so."""
        has_result = bool(self.messages) and self.messages[-1].role == "tool"
        return has_result and not (self._texts or self._calls)

    def _message(self, item: Item, place: str) -> None:
        is_result = item.role == "user" and self._is_behind_result
        content = _noted(item.content) if is_result else item.content
        text = text_of(content, f"{place}.content")
        if item.role == "assistant":
            self._texts.append(text)
            return
        role = ROLES.get(item.role or "")
        if role is None:
            raise InvalidRequest(
                "the role of a message is user, assistant, system or developer",
                param=f"{place}.role",
            )
        self.end_turn()
        self.messages.append(Message(role, text))


def _call(item: Item, place: str) -> HistoryCall:
    if not item.name:
        raise InvalidRequest("a call needs the name of its tool", param=f"{place}.name")
    name = flat_name(item.name, item.namespace)
    if item.kind == "custom_tool_call":
        return HistoryCall(item.call_id, custom=CalledTool(name, text_of(item.input, place)))
    given = item.arguments
    arguments = given if isinstance(given, str) else _json(given or {})
    return HistoryCall(item.call_id, CalledFunction(name, arguments))


def reasoning_text(item: Item, place: str) -> str:
    """The reasoning of an item: its own text, or else its summaries. An encrypted text is another
    server's."""
    own = text_of(item.content, f"{place}.content")
    return own or text_of(item.summary, f"{place}.summary", between="\n\n")


def text_of(given: Any, place: str, *, between: str = "") -> str:
    """A content as text: a text, a list of texts and parts, or any other value as JSON.

    Raises `InvalidRequest` for a part that is no text.
    """
    if given is None or isinstance(given, str):
        return given or ""
    if not isinstance(given, list):
        return _json(given)
    texts = [_part(part, f"{place}[{index}]") for index, part in enumerate(given)]
    return between.join(texts)


def _noted(output: Any) -> Any:
    """A result with a note for each part that is not text."""
    if not isinstance(output, list):
        return output
    return [left_out(kind) if (kind := _other_kind(part)) else part for part in output]


def _other_kind(part: Any) -> str | None:
    """The type of a part that is not text; None for any other value."""
    kind = part.get("type") if isinstance(part, dict) else None
    return kind if isinstance(kind, str) and kind not in PART_KEYS else None


def _part(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        return _json(part)
    key = PART_KEYS.get(kind)
    if key is None:
        raise InvalidRequest(f"content of type {kind[:50]!r} is not supported", param=place)
    text = part.get(key)
    if not isinstance(text, str):
        raise InvalidRequest(f"a {kind} part needs {key}", param=f"{place}.{key}")
    return text


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def shortened(messages: list[Message]) -> list[Message] | None:
    """The messages without the older half of the turns; None if there is one turn only.

    System messages at the beginning stay. A turn begins with the user's message.
    """
    first = next((at for at, one in enumerate(messages) if one.role not in _LEADING), 0)
    turns = [at for at, one in enumerate(messages) if at > first and one.role == "user"]
    if not turns:
        return None
    return messages[:first] + messages[turns[(len(turns) - 1) // 2] :]


_LEADING = ("system", "developer")
