"""`POST /v1/completions`."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from gpufc.errors import InvalidRequest
from gpufc.protocol import Prompt, TextPrompt, TokenPrompt
from supervisor.answers.whole import WholeAnswer
from supervisor.http import validation
from supervisor.http.body import read_json
from supervisor.http.chunks import CompletionChunks
from supervisor.http.context import services
from supervisor.http.generation import Asked, Dialect, generate
from supervisor.http.schemas import (
    MAX_TOKEN_IDS,
    Answer,
    FinishReason,
    GenerationFields,
    TokenId,
    TokenIds,
    UsageObject,
    finish_reason,
)

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""


class CompletionBody(GenerationFields, kw_only=True):
    """A prompt is a text, a list of texts, a list of token ids, or a list of such lists."""

    prompt: str | Annotated[list[str | TokenId | TokenIds], Meta(max_length=MAX_TOKEN_IDS)]


class CompletionChoice(Struct, frozen=True, kw_only=True):
    index: int
    text: str
    logprobs: None = None
    finish_reason: FinishReason


class Completion(Answer, frozen=True, kw_only=True):
    object: str = "text_completion"
    choices: list[CompletionChoice]
    usage: UsageObject


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Continue one or more prompts."""
    body = await read_json(request, CompletionBody)
    limit = validation.max_tokens(body, None, DEFAULT_MAX_TOKENS)
    prompts = _prompts(body, services(request).config.limits.max_prompts)
    return await generate(request, body, Asked(prompts, limit), _DIALECT)


def _prompts(body: CompletionBody, most: int) -> tuple[Prompt, ...]:
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


def _whole(answer: Answer, choices: list[WholeAnswer], usage: UsageObject) -> Completion:
    return Completion(
        id=answer.id,
        created=answer.created,
        model=answer.model,
        system_fingerprint=answer.system_fingerprint,
        choices=[
            CompletionChoice(
                index=index, text=choice.text, finish_reason=finish_reason(choice.ended)
            )
            for index, choice in enumerate(choices)
        ],
        usage=usage,
    )


_DIALECT = Dialect("cmpl-", CompletionChunks, _whole)
