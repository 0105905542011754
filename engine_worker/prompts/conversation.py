"""A conversation in the form that chat templates know: Hugging Face's.

Imports no jinja2: the process that prepares prompts makes conversations, another one renders them.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from gpufc.chat import ChatMessage, ChatPrompt, ToolCall
from gpufc.nesting import is_deeper

Message = dict[str, Any]
"""One turn, with the keys that templates know: role, content, name, tool_calls, tool_call_id,
reasoning_content."""


class Conversation(Struct, frozen=True, array_like=True):
    """Everything that a template is given, but for the model's own special tokens.

    With `continues`, the rendered text ends where the content of the last message ends.
    """

    messages: list[Message]
    add_generation_prompt: bool = True
    continues: bool = False
    tools: list[dict[str, Any]] | None = None
    variables: dict[str, Any] = {}


def conversation(prompt: ChatPrompt) -> Conversation:
    """A prompt's conversation, with arguments and tools as objects."""
    return Conversation(
        [_message(message) for message in prompt.messages],
        prompt.add_generation_prompt,
        prompt.continues,
        msgspec.json.decode(prompt.tools, type=list[dict[str, Any]]) if prompt.tools else None,
        msgspec.json.decode(prompt.variables, type=dict[str, Any]) if prompt.variables else {},
    )


def marked(given: Conversation, mark: Callable[[Any], Any]) -> Conversation:
    """The conversation with `mark` applied to all that a request wrote."""
    messages = [_marked(message, mark) for message in given.messages]
    tools = given.tools and [_marked(tool, mark) for tool in given.tools]
    variables = {name: mark(value) for name, value in given.variables.items()}
    return msgspec.structs.replace(given, messages=messages, tools=tools, variables=variables)


_OURS = frozenset({"role", "type"})
"""Keys with values that templates compare. A request cannot choose others."""
_WHOLES = frozenset({"tool_calls", "function"})
"""Keys with an entry, or a list of entries, that has keys of ours."""


def _marked(entry: dict[str, Any], mark: Callable[[Any], Any]) -> dict[str, Any]:
    """A message, a tool, a call or its function. Names of parameters may be like keys of ours."""

    def of(key: str, value: Any) -> Any:
        if key in _OURS:
            return value
        if key not in _WHOLES:
            return mark(value)
        if isinstance(value, list):
            return [_marked(one, mark) for one in value]
        return _marked(value, mark)

    return {key: of(key, value) for key, value in entry.items()}


def _message(message: ChatMessage) -> Message:
    found: Message = {"role": message.role, "content": message.content}
    # a template may ask whether a key is there
    for key in ("name", "tool_call_id", "reasoning_content"):
        value = getattr(message, key)
        if value is not None:
            found[key] = value
    if message.tool_calls:
        found["tool_calls"] = [_call(call) for call in message.tool_calls]
    return found


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": _arguments(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _arguments(text: str) -> dict[str, Any]:
    """The arguments as an object: templates go through its items."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        found = None
    if isinstance(found, dict) and not is_deeper(found):
        return found
    # a model may write broken JSON, and the conversation must go on all the same
    return {"arguments": text}
