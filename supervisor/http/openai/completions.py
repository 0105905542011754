"""`POST /v1/completions`."""

from typing import Annotated, ClassVar

from aiohttp import web
from msgspec import Meta, Struct

from gpufc.errors import InvalidRequest
from gpufc.protocol import InfillPrompt, Prompt, TextPrompt, TokenPrompt
from supervisor.answers.whole import WholeAnswer
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import services
from supervisor.http.generation import validation
from supervisor.http.generation.dialect import Exchange
from supervisor.http.generation.fields import (
    MAX_TOKEN_IDS,
    GenerationFields,
    TokenId,
    TokenIds,
)
from supervisor.http.generation.generate import Asked, generate
from supervisor.http.openai.chunks import CompletionChunks
from supervisor.http.openai.schemas import (
    AnswerObject,
    FinishReason,
    UsageObject,
    answer_fields,
    finish_reason,
)

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""


class CompletionBody(GenerationFields, kw_only=True):
    """A prompt is a text, a list of texts, a list of token ids, or a list of such lists."""

    SERVED: ClassVar[frozenset[str]] = frozenset({"suffix"})

    prompt: str | Annotated[list[str | TokenId | TokenIds], Meta(max_length=MAX_TOKEN_IDS)]
    suffix: str | None = None


class CompletionChoice(Struct, frozen=True, kw_only=True):
    index: int
    text: str
    logprobs: None = None
    finish_reason: FinishReason


class Completion(AnswerObject, frozen=True, kw_only=True):
    object: str = "text_completion"
    choices: list[CompletionChoice]
    usage: UsageObject


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Continue one or more prompts."""
    body = await read_json(request, CompletionBody)
    limit = validation.max_tokens(body, None, DEFAULT_MAX_TOKENS)
    prompts = _prompts(body, services(request).config.limits.max_prompts)
    dialect = CompletionDialect(body.includes_usage)
    return await generate(request, body, Asked(prompts, limit), dialect)


def _prompts(body: CompletionBody, most: int) -> tuple[Prompt, ...]:
    prompts = _given(body, most)
    if not body.suffix:
        return prompts
    return tuple(_before(prompt, body.suffix) for prompt in prompts)


def _before(prompt: Prompt, suffix: str) -> InfillPrompt:
    if not isinstance(prompt, TextPrompt):
        raise InvalidRequest("a suffix needs prompts that are texts", param="suffix")
    return InfillPrompt(prompt.text, suffix)


def _given(body: CompletionBody, most: int) -> tuple[Prompt, ...]:
    given = body.prompt
    if isinstance(given, str):
        return (TextPrompt(given),)
    # sets of types, because a loop over all items would block the event loop for too long
    kinds = set(map(type, given))
    if kinds == {int}:
        return (TokenPrompt(tuple(given)),)  # type: ignore[arg-type]
    if kinds not in ({str}, {list}):
        raise InvalidRequest(
            "prompt is a string, a list of strings, a list of token ids, or a list of such lists",
            param="prompt",
        )
    if len(given) > most:
        raise InvalidRequest(f"at most {most} prompts", param="prompt")
    return tuple(
        TextPrompt(item) if isinstance(item, str) else TokenPrompt(tuple(item))  # type: ignore[arg-type]
        for item in given
    )


class CompletionDialect(Struct, frozen=True):
    """OpenAI's completions. Implements `Dialect`."""

    include_usage: bool
    id_prefix: str = "cmpl-"

    def whole(self, exchange: Exchange, choices: list[WholeAnswer]) -> Completion:
        return Completion(
            **answer_fields(exchange),
            choices=[
                CompletionChoice(
                    index=index, text=choice.text, finish_reason=finish_reason(choice.ended)
                )
                for index, choice in enumerate(choices)
            ],
            usage=UsageObject.of(exchange.usage()),
        )

    def encoder(self, exchange: Exchange) -> CompletionChunks:
        return CompletionChunks(exchange, include_usage=self.include_usage)
