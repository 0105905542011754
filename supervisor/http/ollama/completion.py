"""`POST /api/generate`."""

import time
from typing import Any, ClassVar

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType, structs

from gpufc.errors import InvalidRequest
from gpufc.protocol import InfillPrompt, TextPrompt
from supervisor.answers.parts import Ended
from supervisor.answers.whole import WholeAnswer
from supervisor.dispatch.stream import Usage
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import Services, json_response, services
from supervisor.http.generation import validation
from supervisor.http.generation.chat import ChatFields, asked_of
from supervisor.http.generation.dialect import Exchange
from supervisor.http.generation.fields import GenerationFields
from supervisor.http.generation.generate import Asked, generate
from supervisor.http.generation.history import Message
from supervisor.http.generation.logprobs import chat_logprobs
from supervisor.http.ollama import life
from supervisor.http.ollama.answers import Last, done_reason, figures, whole_logprobs, written
from supervisor.http.ollama.fields import OllamaFields, generation_fields, thinking_fields
from supervisor.http.ollama.lines import LineWriter
from supervisor.http.ollama.names import served


class GenerateBody(OllamaFields, kw_only=True):
    """Without a prompt, the model is only loaded. A `raw` prompt gets no chat template."""

    SERVED: ClassVar[frozenset[str]] = OllamaFields.SERVED | {
        *("suffix", "system", "template", "raw", "images", "context")
    }

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    raw: bool | None = None
    images: Any = None
    context: Any = None


class GenerateAnswer(Last, frozen=True, kw_only=True):
    response: str = ""
    thinking: str | UnsetType = UNSET


async def generate_text(request: web.Request) -> web.StreamResponse:
    """Answer one prompt, or load the model."""
    body = await read_json(request, GenerateBody)
    front = services(request)
    model = served(front, body.model)
    if not (body.prompt or body.suffix or body.images):
        reason = await life.done_reason(request, model, body.keep_alive)
        return json_response(
            GenerateAnswer(
                model=front.fleet.shown(body.model or None),
                created_at=written(time.time()),
                done_reason=reason,
            )
        )
    _refuse(body)
    life.keep(request, model, body.keep_alive)
    fields, asked = _asked(front, body)
    return await generate(request, fields, asked, GenerateDialect())


def _refuse(body: GenerateBody) -> None:
    """Raises `InvalidRequest` for fields that would change the answer and cannot be served."""
    if body.raw and (body.template or body.system or body.context):
        raise InvalidRequest("raw mode does not support template, system, or context", param="raw")
    for name, remedy in (
        ("images", "the model takes text only"),
        ("template", "the model's own chat template is used; send raw: true for none"),
        ("context", "send the conversation to /api/chat"),
    ):
        if getattr(body, name):
            raise InvalidRequest(f"{name} is not supported: {remedy}", param=name)


def _asked(front: Services, body: GenerateBody) -> tuple[GenerationFields, Asked]:
    shared = generation_fields(body)
    if body.raw or body.suffix:
        fields = GenerationFields(**shared)
        text, limit = body.prompt or "", validation.max_tokens(fields, None, None)
        prompt = InfillPrompt(text, body.suffix) if body.suffix else TextPrompt(text)
        logprobs = chat_logprobs(fields, front.config.limits)
        return fields, Asked((prompt,), limit, logprobs=logprobs, sent=body)
    said = [Message("system", body.system)] if body.system else []
    messages = [*said, Message("user", body.prompt)]
    chat = ChatFields(messages=messages, **thinking_fields(body.think), **shared)
    return chat, asked_of(front, chat)


class GenerateDialect(Struct, frozen=True):
    """Ollama's generate. Implements `Dialect`."""

    id_prefix: str = "ollama-generate-"

    def whole(self, exchange: Exchange, choices: list[WholeAnswer]) -> GenerateAnswer:
        (choice,) = choices
        answer = generate_answer(
            exchange, choice.text, choice.reasoning, choice.ended, exchange.usage()
        )
        return structs.replace(answer, logprobs=whole_logprobs(exchange, choice))

    def encoder(self, exchange: Exchange) -> "GenerateLines":
        return GenerateLines(exchange)


class GenerateLines(LineWriter):
    """The lines of a response. No tools are offered, so that no call comes."""

    BEFORE_TEXT = b'"response":'
    AFTER_TEXT = b""
    BEFORE_THINKING = b'"response":"","thinking":'
    AFTER_THINKING = b""

    def last(self, ended: Ended, usage: Usage) -> GenerateAnswer:
        return generate_answer(self.exchange, "", "", ended, usage)


def generate_answer(
    exchange: Exchange, text: str, thinking: str, ended: Ended, usage: Usage
) -> GenerateAnswer:
    """A response with the end and the figures of its answer."""
    return GenerateAnswer(
        model=exchange.model,
        created_at=written(exchange.created),
        response=text,
        thinking=thinking or UNSET,
        done_reason=done_reason(ended),
        **figures(exchange, usage),
    )
