"""The fields that all generating routes share, under OpenAI's and llama-server's names. Those of
sampling are declared in `gpufc.sampling`.

Unknown fields are ignored, as OpenAI ignores them. A known field that would change the answer and
is not built yet stands in `unsupported.py`, which refuses it.
"""

from typing import Annotated

from msgspec import Meta, Struct

from gpufc.protocol import MAX_RULED_TOKENS
from gpufc.sampling import Repeat
from supervisor.http.generation.adapters import LoraFields
from supervisor.http.generation.constraints import ConstraintFields

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

TokenId = Annotated[int, Meta(ge=0, le=INT32_MAX)]
MAX_TOKEN_IDS = 262_144
"""In one list: more than any context takes, few enough to decode without blocking the loop."""

TokenIds = Annotated[tuple[TokenId, ...], Meta(max_length=MAX_TOKEN_IDS)]
"""Tuples: the garbage collector goes through each list of numbers again and again."""
RuledTokens = Annotated[list[TokenId], Meta(max_length=MAX_RULED_TOKENS)]
Limit = Annotated[int, Meta(ge=-1)]
"""Of generated tokens; -1 is as many as fit."""

Dimensions = Annotated[int, Meta(ge=1, le=INT32_MAX)]
"""Of an embedding."""

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
    repetition_penalty: Repeat | None = None
    logit_bias: (
        Annotated[dict[str, Bias], Meta(max_length=MAX_BIASES)]
        | Annotated[list[tuple[int | str, Bias]], Meta(max_length=MAX_BIASES)]
        | None
    ) = None
    min_tokens: Annotated[int, Meta(ge=0, le=INT32_MAX)] | None = None
    stop_token_ids: RuledTokens | None = None
    allowed_token_ids: RuledTokens | None = None
    include_stop_str_in_output: bool | None = None
    logprobs: bool | Annotated[int, Meta(ge=0)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0)] | None = None
    n_probs: Annotated[int, Meta(ge=0)] | None = None
    post_sampling_probs: bool | None = None
    lora: LoraFields | None = None
    cache_prompt: bool | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)
