"""The fields that all generating OpenAI routes share, and the parts of their answers.

Unknown fields are ignored, as OpenAI ignores them. A known field that would change the answer and
is not built yet stands in `unsupported.py`, which refuses it.
"""

from enum import StrEnum
from typing import Annotated, Self

from msgspec import Meta, Struct

from gpufc import protocol
from gpufc.sampling import Fraction, Penalty, Temperature
from supervisor.answers.parts import Ended, ToolCallBegun
from supervisor.dispatch.stream import Usage
from supervisor.http.constraints import ConstraintFields

INT64_MAX = 2**63 - 1

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
MAX_TOKEN_IDS = 262_144
"""In one list: more than any context takes, few enough to decode without blocking the loop."""

TokenIds = Annotated[list[TokenId], Meta(max_length=MAX_TOKEN_IDS)]
Limit = Annotated[int, Meta(ge=-1)]
"""Of generated tokens; -1 is as many as fit."""

Bias = Annotated[float, Meta(ge=-100.0, le=100.0)] | bool
"""False bans a token, as in llama-server. True is no bias."""

MAX_BIASES = 4096
"""Entries of `logit_bias` that are decoded at all."""


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationFields(ConstraintFields, kw_only=True):
    """OpenAI's fields, and llama-server's names for more. Null always means the default."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: Limit | None = None
    n_predict: Annotated[int, Meta(ge=-2)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: int | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Fraction | None = None
    typical_p: Fraction | None = None
    top_n_sigma: Annotated[float, Meta(ge=-1.0, le=100.0)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    repeat_last_n: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: (
        Annotated[dict[str, Bias], Meta(max_length=MAX_BIASES)]
        | Annotated[list[tuple[int | str, Bias]], Meta(max_length=MAX_BIASES)]
        | None
    ) = None
    ignore_eos: bool | None = None
    cache_prompt: bool | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """The fields that every answer has, whole or in chunks."""

    id: str
    created: int
    model: str
    system_fingerprint: str | None


class FinishReason(StrEnum):
    """OpenAI's reasons for the end of a choice. The worker's are `gpufc.protocol.FinishReason`."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


def finish_reason(ended: Ended) -> FinishReason:
    """OpenAI's word for an end. A choice that stops after a call stops for it."""
    match ended.reason:
        case protocol.FinishReason.LENGTH:
            return FinishReason.LENGTH
        case protocol.FinishReason.STOP | protocol.FinishReason.CANCELLED:
            return FinishReason.TOOL_CALLS if ended.n_calls else FinishReason.STOP


class FunctionObject(Struct, frozen=True):
    name: str
    arguments: str


class ToolCallObject(Struct, frozen=True):
    """A tool call in a message."""

    id: str
    function: FunctionObject
    type: str = "function"

    @classmethod
    def begun(cls, answer: Answer, index: int, part: ToolCallBegun) -> Self:
        """The call without its arguments, as choice `index` begins it."""
        own_id = part.id or call_id(answer, index, part.call)
        return cls(own_id, FunctionObject(part.name, ""))


def call_id(answer: Answer, index: int, call: int) -> str:
    """The id of a call where the model gives none: the same for every reader of the answer."""
    return f"call_{answer.id.rpartition('-')[2]}_{index}_{call}"


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
