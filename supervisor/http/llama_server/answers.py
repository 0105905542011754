"""llama-server's answer to a completion: its text, its end, counts, times and settings."""

from enum import StrEnum
from typing import Any, Self

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gpufc.protocol import FinishReason, TextPrompt
from supervisor.answers.parts import Ended
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream import Usage
from supervisor.dispatch.timings import Timings
from supervisor.http.generation.dialect import Exchange
from supervisor.http.llama_server.probabilities import Json

MILLISECONDS = 1000.0
AS_MANY_AS_FIT = -1


class StopType(StrEnum):
    """llama-server's reasons for the end of an answer."""

    NONE = "none"
    EOS = "eos"
    WORD = "word"
    LIMIT = "limit"


class Durations(Struct, frozen=True, kw_only=True):
    """llama-server's `timings`. `prompt_n` are the prompt's tokens that were computed, `cache_n`
    those that were found. Several prompts of one request share their times."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float

    @classmethod
    def of(cls, usage: Usage, timings: Timings) -> Self:
        computed = usage.prompt - usage.cached
        return cls(
            cache_n=usage.cached,
            prompt_n=computed,
            prompt_ms=timings.prompt_s * MILLISECONDS,
            prompt_per_token_ms=_ratio(timings.prompt_s * MILLISECONDS, computed),
            prompt_per_second=_ratio(computed, timings.prompt_s),
            predicted_n=usage.completion,
            predicted_ms=timings.generation_s * MILLISECONDS,
            predicted_per_token_ms=_ratio(timings.generation_s * MILLISECONDS, usage.completion),
            predicted_per_second=_ratio(usage.completion, timings.generation_s),
        )


class NativeCompletion(Struct, frozen=True, kw_only=True):
    """A finished answer, or the last event of a stream, whose content has been sent before."""

    index: int
    content: str
    tokens: tuple[int, ...] = ()
    id_slot: int = -1
    stop: bool = True
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    generation_settings: dict[str, Any]
    prompt: str
    has_new_line: bool
    truncated: bool = False
    stop_type: StopType
    stopping_word: str
    tokens_cached: int
    timings: Durations
    completion_probabilities: list[Json] | UnsetType = UNSET


class Shape(Struct, frozen=True):
    """What a client wants of an answer: the ids of its tokens, and only some of its fields."""

    return_tokens: bool = False
    fields: tuple[str, ...] = ()

    def of(self, answer: NativeCompletion) -> NativeCompletion | Json:
        """The answer, or its wanted fields by their paths, such as `timings/prompt_n`. Paths that
        lead nowhere are left out."""
        if not self.fields:
            return answer
        plain = msgspec.to_builtins(answer)
        found = {path: _at(plain, path) for path in self.fields}
        return {path: value for path, value in found.items() if value is not UNSET}


def native_completion(
    exchange: Exchange,
    index: int,
    ended: Ended,
    shape: Shape,
    *,
    content: str = "",
    has_new_line: bool = False,
    probabilities: list[Json] | UnsetType = UNSET,
) -> NativeCompletion | Json:
    """The answer of choice `index`. A stream passes no content."""
    usage, stop = exchange.usage_of(index), stop_type(ended)
    answer = NativeCompletion(
        index=index,
        content=content,
        tokens=exchange.tokens_of(index) if shape.return_tokens else (),
        model=exchange.model,
        tokens_predicted=usage.completion,
        tokens_evaluated=usage.prompt,
        generation_settings=settings(exchange.request),
        prompt=_text(exchange.request, index),
        has_new_line=has_new_line,
        stop_type=stop,
        stopping_word=(ended.stop or "") if stop is StopType.WORD else "",
        tokens_cached=usage.prompt + usage.completion,
        timings=Durations.of(usage, exchange.timings),
        completion_probabilities=probabilities,
    )
    return shape.of(answer)


def stop_type(ended: Ended) -> StopType:
    """llama-server's word for an end."""
    match ended.reason:
        case FinishReason.LENGTH:
            return StopType.LIMIT
        case FinishReason.STOP:
            return StopType.EOS if ended.stop is None else StopType.WORD
        case FinishReason.CANCELLED:
            return StopType.NONE


def settings(request: GenerationRequest) -> dict[str, Any]:
    """The parameters that an answer was generated with."""
    limit = AS_MANY_AS_FIT if request.max_tokens is None else request.max_tokens
    sampling = msgspec.structs.asdict(request.sampling)
    sampling["logit_bias"] = [
        {"token": token, "bias": bias} for token, bias in request.sampling.logit_bias
    ]
    return sampling | {"max_tokens": limit, "n_predict": limit, "stop": request.stop}


def _text(request: GenerationRequest, index: int) -> str:
    """The text of a choice's prompt; empty for token ids."""
    prompt = request.prompts[index // request.n]
    return prompt.text if isinstance(prompt, TextPrompt) else ""


def _at(document: Any, path: str) -> Any:
    for key in path.split("/"):
        if not isinstance(document, dict) or key not in document:
            return UNSET
        document = document[key]
    return document


def _ratio(amount: float, by: float) -> float:
    return amount / by if by else 0.0
