"""The message that answers a request: its blocks, its usage, and the reason of its end."""

from collections.abc import Iterator
from enum import StrEnum

import msgspec
from msgspec import Struct

from gpufc.protocol import FinishReason
from supervisor.answers.parts import (
    Begun,
    Ended,
    Logprobs,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallBegun,
)
from supervisor.answers.whole import WholeAnswer
from supervisor.dispatch import stream
from supervisor.http.generation.dialect import Exchange

SIGNATURE = "gpufc"
"""Of every block of reasoning. Clients keep it beside the text, and some drop blocks without one.
It signs nothing."""


class StopReason(StrEnum):
    """Anthropic's reasons for the end of a message, as far as they occur here."""

    END_TURN = "end_turn"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    TOOL_USE = "tool_use"
    CONTEXT_END = "model_context_window_exceeded"


class Usage(Struct, frozen=True):
    """Anthropic's `usage`. `input_tokens` are those of the prompt that no cache had.

    The members with a default are required by Anthropic's own description of an answer, as are
    those of the blocks and of the message. Nothing here has another value for them.
    """

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    cache_creation: None = None
    inference_geo: None = None
    output_tokens_details: None = None
    server_tool_use: None = None
    service_tier: str = "standard"

    @classmethod
    def of(cls, usage: stream.Usage) -> "Usage":
        return cls(usage.prompt - usage.cached, 0, usage.cached, usage.completion)


class TextBlock(Struct, frozen=True, tag_field="type", tag="text"):
    """`citations` is an empty list, not the null that it may be: Vercel's SDK refuses null."""

    text: str
    citations: tuple[()] = ()


class ThinkingBlock(Struct, frozen=True, tag_field="type", tag="thinking"):
    thinking: str
    signature: str


class Caller(Struct, frozen=True):
    """Which part of an answer calls a tool: the model itself."""

    type: str = "direct"


class ToolUseBlock(Struct, frozen=True, tag_field="type", tag="tool_use"):
    """`input` is an object."""

    id: str
    name: str
    input: msgspec.Raw
    caller: Caller = Caller()


AnswerBlock = TextBlock | ThinkingBlock | ToolUseBlock


class MessageObject(Struct, frozen=True, kw_only=True):
    """An answer. A stream begins with one that has no content and no end."""

    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: list[AnswerBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    stop_details: None = None
    usage: Usage
    container: None = None


def message(exchange: Exchange, choice: WholeAnswer, *, shows_thinking: bool) -> MessageObject:
    """The whole answer. A call that a limit has cut is left out: it must not be carried out."""
    content = list(_blocks(exchange, choice, shows_thinking=shows_thinking))
    calls = any(isinstance(block, ToolUseBlock) for block in content)
    reason = stop_reason(choice.ended, exchange, calls=calls)
    return MessageObject(
        id=exchange.id,
        model=exchange.model,
        content=content,
        stop_reason=reason,
        stop_sequence=stop_sequence(choice.ended, reason),
        usage=Usage.of(exchange.usage()),
    )


def _blocks(
    exchange: Exchange, choice: WholeAnswer, *, shows_thinking: bool
) -> Iterator[AnswerBlock]:
    for part in choice.parts:
        match part:
            case Text(text):
                yield TextBlock(text)
            case Reasoning(text):
                yield ThinkingBlock(text if shows_thinking else "", SIGNATURE)
            case ToolCallBegun(call):
                given = choice.calls[call].arguments or "{}"
                if _is_object(given):
                    own_id = call_id(exchange, part)
                    yield ToolUseBlock(own_id, part.name, msgspec.Raw(given.encode()))
            case Begun() | ToolCallArguments() | Logprobs() | Ended():
                pass


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def stop_reason(ended: Ended, exchange: Exchange, *, calls: bool) -> StopReason:
    """Anthropic's word for an end. A message with `calls` that stops by itself stops for them."""
    match ended.reason:
        case FinishReason.LENGTH:
            limit = exchange.request.max_tokens
            is_limit = limit is not None and exchange.usage().completion >= limit
            return StopReason.MAX_TOKENS if is_limit else StopReason.CONTEXT_END
        case FinishReason.STOP | FinishReason.CANCELLED:
            if calls:
                return StopReason.TOOL_USE
            return StopReason.END_TURN if ended.stop is None else StopReason.STOP_SEQUENCE


def stop_sequence(ended: Ended, reason: StopReason) -> str | None:
    """The stop sequence that ended a message, where its reason says so."""
    return ended.stop if reason is StopReason.STOP_SEQUENCE else None


def call_id(exchange: Exchange, begun: ToolCallBegun) -> str:
    """A call's id: the model's own, or else the same one for every reader of the answer."""
    return begun.id or "toolu_" + exchange.call_id(0, begun.call).removeprefix("call_")
