"""The fields that all generating OpenAI routes share, and the parts of their answers.

Unknown fields are passed over, as OpenAI does. Those that would change the answer but are not
built yet stand in `unsupported.py`, so that none of them is passed over.
"""

from typing import Annotated

from msgspec import Meta, Struct

from gpufc.sampling import Fraction, Penalty, Temperature
from supervisor.dispatch.stream import Usage
from supervisor.http.unsupported import NotYet

INT64_MAX = 2**63 - 1

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
MAX_TOKEN_IDS = 262_144
"""In one list. More than any context takes, and few enough not to hold up the event loop."""

TokenIds = Annotated[list[TokenId], Meta(max_length=MAX_TOKEN_IDS)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class GenerationFields(NotYet, kw_only=True):
    """OpenAI's fields and, beside them, llama-server's names. Null always means the default."""

    model: str | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: Count | None = None
    n_predict: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: Annotated[int, Meta(ge=-INT64_MAX - 1, le=INT64_MAX)] | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Fraction | None = None
    typical_p: Fraction | None = None
    repeat_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    repeat_last_n: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100.0, le=100.0)]] | None = None
    ignore_eos: bool | None = None
    cache_prompt: bool | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """What every answer, whole or in chunks, says of itself."""

    id: str
    created: int
    model: str
    system_fingerprint: str | None


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: int


class UsageObject(Struct, frozen=True):
    """OpenAI's `usage`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, usage: Usage) -> "UsageObject":
        """From what the stream has counted."""
        return cls(
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            total_tokens=usage.prompt + usage.completion,
            prompt_tokens_details=PromptTokensDetails(usage.cached),
        )
