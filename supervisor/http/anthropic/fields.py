"""The body of a Messages request, and its translation into `ChatFields`. Pure."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from gpufc.sampling import Fraction, Temperature
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
from supervisor.http.generation.fields import Limit
from supervisor.http.generation.history import MAX_MESSAGES
from supervisor.http.generation.thinking import THINKS, switched

EFFORTS = {"xhigh": "high", "max": "high"}
"""Anthropic's words for a model's effort that templates do not know. They know `high`."""


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


class MessagesBody(Struct, frozen=True, kw_only=True):
    """The fields that are understood. Anthropic's come first, then those of gpufc."""

    messages: Annotated[list[InputMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    max_tokens: Limit | None = None
    system: Blocks = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    top_p: Fraction | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ChosenTool | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    mcp_servers: list[Any] | None = None
    seed: int | None = None
    min_p: Fraction | None = None
    repeat_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    ignore_eos: bool | None = None
    cache_prompt: bool | None = None

    @property
    def shows_thinking(self) -> bool:
        """Whether an answer has the text of its reasoning."""
        return self.thinking is None or self.thinking.is_shown


def chat_fields(body: MessagesBody) -> ChatFields:
    """The same request as a chat's. Raises `InvalidRequest`."""
    if body.mcp_servers:
        raise refusal("mcp_servers", "they cannot be served; the client can connect to them")
    config = body.output_config or OutputConfig()
    effort = config.effort or None
    schema = _schema(body.output_format, "output_format")
    return ChatFields(
        messages=conversation(body.system, body.messages),
        model=body.model,
        max_tokens=body.max_tokens,
        stop=body.stop_sequences,
        stream=body.stream,
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        tools=as_tools(body.tools),
        tool_choice=as_choice(body.tool_choice),
        parallel_tool_calls=as_parallel(body.tool_choice),
        reasoning_effort=EFFORTS.get(effort, effort) if effort else None,
        chat_template_kwargs=_variables(body.thinking),
        json_schema=_schema(config.format, "output_config.format"),
        response_format=None if schema is None else ResponseFormat("json_schema", schema=schema),
        seed=body.seed,
        min_p=body.min_p,
        repeat_penalty=body.repeat_penalty,
        ignore_eos=body.ignore_eos,
        cache_prompt=body.cache_prompt,
    )


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
