"""`POST /v1/completions`."""

from aiohttp import web
from msgspec import Struct

from gpufc.errors import InvalidRequest
from gpufc.protocol import FinishReason, Prompt, TextPrompt, TokenPrompt
from supervisor.dispatch.stream import ResponseStream
from supervisor.http import validation
from supervisor.http.body import read_json
from supervisor.http.chunks import CompletionChunks
from supervisor.http.generation import Dialect, generate
from supervisor.http.schemas import Answer, GenerationFields, TokenId, UsageObject

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""


class CompletionBody(GenerationFields, kw_only=True):
    """The request. A prompt is one text, several, one list of token ids, or several."""

    prompt: str | list[str | TokenId | list[TokenId]]


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
    return await generate(request, body, _prompts(body), limit, _DIALECT)


def _prompts(body: CompletionBody) -> tuple[Prompt, ...]:
    given = body.prompt
    if isinstance(given, str):
        return (TextPrompt(given),)
    texts = [item for item in given if isinstance(item, str)]
    tokens = [item for item in given if isinstance(item, int)]
    lists = [item for item in given if isinstance(item, list)]
    if not given or max(len(texts), len(tokens), len(lists)) < len(given):
        raise InvalidRequest(
            "prompt is a string, a list of strings, a list of token ids, or a list of such lists",
            param="prompt",
        )
    if tokens:
        return (TokenPrompt(tuple(tokens)),)
    return (*map(TextPrompt, texts), *(TokenPrompt(tuple(item)) for item in lists))


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
