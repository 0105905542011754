"""The parts of OpenAI's answers that its routes share."""

from enum import StrEnum
from typing import Self, TypedDict

from msgspec import Struct

from gpufc import protocol
from supervisor.answers.parts import Ended, ToolCallBegun
from supervisor.dispatch.stream import Usage
from supervisor.http.generation.dialect import Exchange


class AnswerFields(TypedDict):
    """The fields that every answer has, whole or in chunks."""

    id: str
    created: int
    model: str
    system_fingerprint: str | None


class AnswerObject(Struct, frozen=True, kw_only=True):
    """`AnswerFields` as the base of whole answers."""

    id: str
    created: int
    model: str
    system_fingerprint: str | None


def answer_fields(exchange: Exchange) -> AnswerFields:
    return {
        "id": exchange.id,
        "created": exchange.created,
        "model": exchange.model,
        "system_fingerprint": exchange.system_fingerprint,
    }


class FinishReason(StrEnum):
    """OpenAI's reasons for the end of a choice. The worker's are `gpufc.protocol.FinishReason`."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    FUNCTION_CALL = "function_call"


def finish_reason(ended: Ended, *, older: bool = False) -> FinishReason:
    """OpenAI's word for an end. A choice that stops after a call stops for it, and has an `older`
    word for it."""
    match ended.reason:
        case protocol.FinishReason.LENGTH:
            return FinishReason.LENGTH
        case protocol.FinishReason.STOP | protocol.FinishReason.CANCELLED:
            called = FinishReason.FUNCTION_CALL if older else FinishReason.TOOL_CALLS
            return called if ended.n_calls else FinishReason.STOP


class FunctionObject(Struct, frozen=True):
    name: str
    arguments: str


class ToolCallObject(Struct, frozen=True):
    """A tool call in a message."""

    id: str
    function: FunctionObject
    type: str = "function"

    @classmethod
    def begun(cls, exchange: Exchange, index: int, part: ToolCallBegun) -> Self:
        """The call without its arguments, as choice `index` begins it."""
        own_id = part.id or exchange.call_id(index, part.call)
        return cls(own_id, FunctionObject(part.name, ""))


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: int


class UsageObject(Struct, frozen=True):
    """OpenAI's `usage`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, usage: Usage) -> Self:
        """From the counts of a stream."""
        return cls(
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            total_tokens=usage.prompt + usage.completion,
            prompt_tokens_details=PromptTokensDetails(usage.cached),
        )
