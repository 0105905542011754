"""The body of a Messages request, and its translation into `ChatFields`. Pure."""

from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct

from supervisor.http.anthropic.blocks import Blocks, refusal
from supervisor.http.anthropic.conversation import InputMessage, conversation
from supervisor.http.anthropic.tools import (
    ChosenTool,
    ToolDefinition,
    as_choice,
    as_parallel,
    as_tools,
)
from supervisor.http.generation.chat import ChatFields
from supervisor.http.generation.constraints import ResponseFormat
from supervisor.http.generation.fields import GenerationFields
from supervisor.http.generation.history import MAX_MESSAGES
from supervisor.http.generation.thinking import THINKS, switched

EFFORTS = {"xhigh": "high", "max": "high"}
"""Anthropic's words for a model's effort that templates do not know. They know `high`."""


SHARED = GenerationFields.__struct_fields__


class Thinking(Struct, frozen=True):
    type: str
    display: str | None = None

    @property
    def is_shown(self) -> bool:
        """Whether an answer has the text of its reasoning."""
        return self.display != "omitted"


class OutputFormat(Struct, frozen=True):
    """A schema for the text of the answer."""

    type: str
    schema: dict[str, Any] | bool | None = None


class OutputConfig(Struct, frozen=True):
    effort: str | None = None
    format: OutputFormat | None = None


class MessagesBody(GenerationFields, kw_only=True):
    """Anthropic's fields, and those that all generating routes share."""

    SERVED: ClassVar[frozenset[str]] = frozenset({"system"})

    messages: Annotated[list[InputMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: Blocks = None
    stop_sequences: list[str] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ChosenTool | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    mcp_servers: list[Any] | None = None

    @property
    def shows_thinking(self) -> bool:
        """Whether an answer has the text of its reasoning."""
        return self.thinking is None or self.thinking.is_shown


def chat_fields(body: MessagesBody) -> ChatFields:
    """The same request as a chat's. Raises `InvalidRequest`."""
    if body.mcp_servers:
        raise refusal("mcp_servers", "they cannot be served; the client can connect to them")
    for name in ("logprobs", "top_logprobs", "n_probs"):
        if getattr(body, name):
            raise refusal(name, "a message has no log probabilities")
    if (body.n or 1) > 1:
        raise refusal("n", "there is one answer; it is at most 1")
    config = body.output_config or OutputConfig()
    effort = config.effort or None
    shared = {name: getattr(body, name) for name in SHARED if name not in body.SERVED}
    # its options say nothing about the answer here, and a chat refuses them without a stream
    shared["stream_options"] = None
    shared["stop"] = _stops(body)
    _add(shared, "json_schema", _schema(config.format, "output_config.format"))
    schema = _schema(body.output_format, "output_format")
    older = None if schema is None else ResponseFormat("json_schema", schema=schema)
    _add(shared, "response_format", older)
    return ChatFields(
        **shared,
        messages=conversation(body.system, body.messages),
        tools=as_tools(body.tools),
        tool_choice=as_choice(body.tool_choice, body.tools),
        parallel_tool_calls=as_parallel(body.tool_choice),
        reasoning_effort=EFFORTS.get(effort, effort) if effort else None,
        chat_template_kwargs=_variables(body.thinking),
    )


def _stops(body: MessagesBody) -> list[str]:
    """Anthropic's stop sequences, and those under the name of others."""
    others = [body.stop] if isinstance(body.stop, str) else body.stop
    return [*(body.stop_sequences or ()), *(others or ())]


def _add(shared: dict[str, Any], name: str, own: object | None) -> None:
    """Put what an own field asks for in the place of a shared one."""
    if own is not None and shared[name] is not None:
        raise refusal(name, "the body asks for two formats")
    if own is not None:
        shared[name] = own


def _variables(thinking: Thinking | None) -> dict[str, Any] | None:
    """Without the field, the model's template decides."""
    if thinking is None:
        return None
    if thinking.type not in THINKS:
        raise refusal("thinking.type", f"{thinking.type[:50]!r} is none of {', '.join(THINKS)}")
    return switched(THINKS[thinking.type])


def _schema(given: OutputFormat | None, place: str) -> dict[str, Any] | bool | None:
    """The schema that a format asks for. Raises `InvalidRequest`."""
    if given is None:
        return None
    if given.type != "json_schema":
        raise refusal(f"{place}.type", f"{given.type[:50]!r} is not supported; json_schema is")
    if given.schema is None:
        raise refusal(f"{place}.schema", "a format needs a schema")
    return given.schema
