"""A Responses request as a chat's fields. Pure."""

from typing import Any

from gpufc.errors import InvalidRequest
from supervisor.http.generation.chat import ChatFields
from supervisor.http.generation.constraints import NamedSchema, ResponseFormat
from supervisor.http.generation.fields import GenerationFields
from supervisor.http.generation.history import MAX_MESSAGES, Message
from supervisor.http.responses.fields import (
    Item,
    ResponsesFields,
    TextFormat,
    wants_logprobs,
)
from supervisor.http.responses.items import conversation
from supervisor.http.responses.tools import ToolTable, tool_choice

SHARED = GenerationFields.__struct_fields__

NAMES = {
    "messages": "input",
    "prompt": "input",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "max_completion_tokens": "max_output_tokens",
}
"""A chat's fields by the names that they have here, for errors."""


def own_items(given: str | list[Item] | None) -> list[Item]:
    """The items of a request's own input. A text is a message of the user."""
    if isinstance(given, str):
        return [Item(type="message", role="user", content=given)]
    return given or []


def chat_fields(body: ResponsesFields, items: list[Item], tools: ToolTable) -> ChatFields:
    """The chat that a request asks for; `items` are the whole conversation's.

    Raises `InvalidRequest`.
    """
    messages = conversation(items)
    if not messages:
        raise InvalidRequest("input needs at least one item", param="input")
    if len(messages) >= MAX_MESSAGES:
        raise InvalidRequest(f"a conversation has at most {MAX_MESSAGES} items", param="input")
    if body.instructions:
        messages.insert(0, Message("system", body.instructions))
    shared: dict[str, Any] = {name: getattr(body, name) for name in SHARED}
    # its options say nothing about the answer here, and a chat refuses them without a stream
    shared["stream_options"] = None
    shared["logprobs"] = wants_logprobs(body)
    text = body.text
    if text is not None and text.format is not None:
        shared["response_format"] = _response_format(text.format)
    return ChatFields(
        **shared,
        messages=messages,
        max_completion_tokens=body.max_output_tokens,
        tools=list(tools.tools) or None,
        tool_choice=tool_choice(body.tool_choice, tools),
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning=body.reasoning,
        verbosity=text.verbosity if text else None,
        chat_template_kwargs=body.chat_template_kwargs,
    )


def _response_format(asked: TextFormat) -> ResponseFormat:
    schema = None if asked.schema is None else NamedSchema(asked.schema)
    return ResponseFormat(asked.type, schema)


def name_here(param: str | None) -> str | None:
    """The field of a Responses request that a chat's field comes from."""
    if param is None:
        return None
    first, dot, rest = param.partition(".")
    known = NAMES.get(first.partition("[")[0])
    if known is None:
        return param
    # below the field, the forms differ
    is_schema = known == "text.format" and rest.startswith("json_schema.")
    return f"{known}.{rest.removeprefix('json_schema.')}" if dot and is_schema else known
