"""`POST /v1/completions`."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from gpufc.errors import InvalidRequest
from gpufc.protocol import FinishReason, Prompt, TextPrompt, TokenPrompt
from supervisor.dispatch.stream import ResponseStream
from supervisor.http import validation
from supervisor.http.body import read_json
from supervisor.http.chunks import CompletionChunks
from supervisor.http.context import services
from supervisor.http.generation import Dialect, generate
from supervisor.http.schemas import (
    MAX_TOKEN_IDS,
    Answer,
    GenerationFields,
    TokenId,
    TokenIds,
    UsageObject,
)

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""


class CompletionBody(GenerationFields, kw_only=True):
    """The request. A prompt is one text, several, one list of token ids, or several."""

    prompt: str | Annotated[list[str | TokenId | TokenIds], Meta(max_length=MAX_TOKEN_IDS)]


class CompletionChoice(Struct, frozen=True, kw_only=True):
    index: int
    text: str
    logprobs: None = None
    finish_reason: FinishReason | None


class Completion(Answer, frozen=True, kw_only=True):
    """The whole answer."""

    object: str = "text_completion"
    choices: list[CompletionChoice]
    usage: UsageObject


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Continue one or more prompts."""
    body = await read_json(request, CompletionBody)
    limit = validation.max_tokens(body, None, DEFAULT_MAX_TOKENS)
    prompts = _prompts(body, services(request).config.limits.max_prompts)
    return await generate(request, body, prompts, limit, _DIALECT)


def _prompts(body: CompletionBody, most: int) -> tuple[Prompt, ...]:
    given = body.prompt
    if isinstance(given, str):
        return (TextPrompt(given),)
    # by sets of types: there may be a million items, and the event loop waits
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


def _whole(answer: Answer, stream: ResponseStream, texts: list[str]) -> Completion:
    return Completion(
        id=answer.id,
        created=answer.created,
        model=answer.model,
        system_fingerprint=answer.system_fingerprint,
        choices=[
            CompletionChoice(index=log.index, text=text, finish_reason=log.finish)
            for log, text in zip(stream.logs, texts, strict=True)
        ],
        usage=UsageObject.of(stream.usage),
    )


_DIALECT = Dialect("cmpl-", CompletionChunks, _whole)
