"""`POST /api/chat`."""

import time
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from supervisor.answers.parts import Ended
from supervisor.answers.whole import WholeAnswer
from supervisor.dispatch.stream import Usage
from supervisor.http.edge.body import let_loop_go_on, read_json
from supervisor.http.edge.context import json_response, services
from supervisor.http.generation.chat import ChatFields, asked_of
from supervisor.http.generation.dialect import Exchange
from supervisor.http.generation.generate import generate
from supervisor.http.generation.history import MAX_MESSAGES
from supervisor.http.generation.tools import Tool
from supervisor.http.ollama import life
from supervisor.http.ollama.answers import (
    Last,
    arguments_of,
    as_text,
    done_reason,
    figures,
    whole_logprobs,
    written,
)
from supervisor.http.ollama.fields import OllamaFields, generation_fields, thinking_fields
from supervisor.http.ollama.lines import LineWriter
from supervisor.http.ollama.messages import OllamaMessage, messages_of
from supervisor.http.ollama.names import served

_encode = msgspec.json.Encoder().encode


class ChatBody(OllamaFields, kw_only=True):
    """Without messages, the model is only loaded."""

    messages: Annotated[list[OllamaMessage], Meta(max_length=MAX_MESSAGES)] | None = None
    tools: list[Tool] | None = None


class Function(Struct, frozen=True):
    index: int
    name: str
    arguments: dict[str, Any]


class Call(Struct, frozen=True):
    """A whole call. Its arguments are an object."""

    id: str
    function: Function


class Answered(Struct, frozen=True, kw_only=True):
    """An answer's message. `content` is never null."""

    role: str = "assistant"
    content: str = ""
    thinking: str | UnsetType = UNSET
    tool_calls: list[Call] | UnsetType = UNSET


class ChatAnswer(Last, frozen=True, kw_only=True):
    message: Answered


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer a conversation, or load the model."""
    body = await read_json(request, ChatBody)
    front = services(request)
    model = served(front, body.model)
    if not body.messages:
        reason = await life.done_reason(request, model, body.keep_alive)
        return json_response(
            ChatAnswer(
                model=front.fleet.shown(body.model or None),
                created_at=written(time.time()),
                message=Answered(),
                done_reason=reason,
            )
        )
    life.keep(request, model, body.keep_alive)
    fields = ChatFields(
        messages=messages_of(body.messages),
        tools=body.tools,
        **thinking_fields(body.think),
        **generation_fields(body),
    )
    await let_loop_go_on(request)
    return await generate(request, fields, asked_of(front, fields), ChatDialect())


class ChatDialect(Struct, frozen=True):
    """Ollama's chat. Implements `Dialect`."""

    id_prefix: str = "ollama-chat-"

    def whole(self, exchange: Exchange, choices: list[WholeAnswer]) -> ChatAnswer:
        (choice,) = choices
        text, calls = [choice.text], []
        for number, call in enumerate(choice.calls):
            arguments = arguments_of(call.arguments)
            if arguments is None:
                text.append(as_text(call.name, call.arguments))
            else:
                own_id = call.id or exchange.call_id(0, number)
                calls.append(Call(own_id, Function(number, call.name, arguments)))
        message = Answered(
            content="".join(text), thinking=choice.reasoning or UNSET, tool_calls=calls or UNSET
        )
        answer = chat_answer(exchange, message, choice.ended, exchange.usage())
        return structs.replace(answer, logprobs=whole_logprobs(exchange, choice))

    def encoder(self, exchange: Exchange) -> "ChatLines":
        return ChatLines(exchange)


class ChatLines(LineWriter):
    """The lines of a chat, each with a message."""

    BEFORE_TEXT = b'"message":{"role":"assistant","content":'
    AFTER_TEXT = b"}"
    BEFORE_THINKING = b'"message":{"role":"assistant","content":"","thinking":'
    AFTER_THINKING = b"}"

    def last(self, ended: Ended, usage: Usage) -> ChatAnswer:
        return chat_answer(self.exchange, Answered(), ended, usage)

    def call(self, number: int, own_id: str, name: str, arguments: dict[str, Any]) -> bytes:
        message = Answered(tool_calls=[Call(own_id, Function(number, name, arguments))])
        return b'"message":' + _encode(message)


def chat_answer(exchange: Exchange, message: Answered, ended: Ended, usage: Usage) -> ChatAnswer:
    """A message with the end and the figures of its answer."""
    return ChatAnswer(
        model=exchange.model,
        created_at=written(exchange.created),
        message=message,
        done_reason=done_reason(ended),
        **figures(exchange, usage),
    )
