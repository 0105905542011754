"""`POST /v1/messages` and `/v1/messages/count_tokens`."""

from aiohttp import web
from msgspec import Struct

from supervisor.answers.whole import WholeAnswer
from supervisor.http.anthropic.answer import MessageObject, message
from supervisor.http.anthropic.events import MessageEvents
from supervisor.http.anthropic.fields import MessagesBody, chat_fields
from supervisor.http.edge.body import let_loop_go_on, read_json
from supervisor.http.edge.context import json_response, services
from supervisor.http.generation.chat import asked_of, count
from supervisor.http.generation.dialect import Exchange
from supervisor.http.generation.generate import generate


class TokenCount(Struct, frozen=True):
    input_tokens: int


async def create_message(request: web.Request) -> web.StreamResponse:
    """Answer a conversation."""
    body = await read_json(request, MessagesBody)
    fields = chat_fields(body)
    await let_loop_go_on(request)
    asked = asked_of(services(request), fields)
    return await generate(request, fields, asked, MessagesDialect(body.shows_thinking))


async def count_tokens(request: web.Request) -> web.Response:
    """The tokens of a conversation with its tools, as the model would get it."""
    fields = chat_fields(await read_json(request, MessagesBody))
    await let_loop_go_on(request)
    n_tokens, headers = await count(services(request), fields)
    return json_response(TokenCount(n_tokens), headers=headers)


class MessagesDialect(Struct, frozen=True):
    """Anthropic's messages. Implements `Dialect`. Without `shows_thinking`, blocks of reasoning
    have no text."""

    shows_thinking: bool = True
    id_prefix: str = "msg_"

    def whole(self, exchange: Exchange, choices: list[WholeAnswer]) -> MessageObject:
        return message(exchange, choices[0], shows_thinking=self.shows_thinking)

    def encoder(self, exchange: Exchange) -> MessageEvents:
        return MessageEvents(exchange, shows_thinking=self.shows_thinking)
