"""`/v1/responses`: make, read, list and forget responses."""

import time

from aiohttp import web
from msgspec import Struct, structs

from gpufc.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    NotFound,
    PreviousResponseNotFound,
    RequestError,
)
from supervisor.http.edge.body import BODY_DIGEST, let_loop_go_on, read_json
from supervisor.http.edge.context import PRINCIPAL, REQUEST_ID, json_response, services
from supervisor.http.edge.streams import HEADERS, SERVER_SENT_EVENTS
from supervisor.http.generation import validation
from supervisor.http.generation.chat import ChatFields, asked_of, count
from supervisor.http.generation.generate import generate
from supervisor.http.responses.answer import Reply, ResponseObject, echo_of
from supervisor.http.responses.dialect import ResponsesDialect
from supervisor.http.responses.events import failed_stream
from supervisor.http.responses.fields import Item, ResponsesFields, refuse_unserved
from supervisor.http.responses.items import resolved, shortened
from supervisor.http.responses.listing import page_of
from supervisor.http.responses.store import Memories, Memory, Recall, Remembered, remembered
from supervisor.http.responses.tools import tool_table
from supervisor.http.responses.translation import chat_fields, name_here, own_items

MEMORIES = web.AppKey("memories", Memories)

SEALED = "reasoning.encrypted_content"
"""The entry of `include` that asks for an `encrypted_content` of reasoning."""


class InputTokens(Struct, frozen=True):
    """The tokens of a request's whole input."""

    input_tokens: int
    object: str = "response.input_tokens"


async def create_response(request: web.Request) -> web.StreamResponse:
    """Answer a conversation, and remember both unless `store` is false."""
    body = await read_json(request, ResponsesFields)
    refuse_unserved(body)
    memory = _memory(request)
    items = _whole_input(request, body)
    tools = tool_table(body.tools)

    def keep(response: ResponseObject) -> None:
        if body.store is not False:
            memory.keep(remembered(response, items))

    try:
        fields = chat_fields(body, items, tools)
        await let_loop_go_on(request)
        fleet = services(request).fleet
        defaults = fleet.sampling(fleet.resolve(fields.model))
        echo = echo_of(body, validation.sampling(fields, defaults, {}))
        seals = SEALED in (body.include or ())
        dialect = ResponsesDialect(echo, tools, keep, seals)
        return await _answered(request, fields, dialect, truncates=body.truncation == "auto")
    except RequestError as err:
        err.param = name_here(err.param)
        raise


async def count_input_tokens(request: web.Request) -> web.Response:
    """The tokens of a conversation with its tools, as the model would get it."""
    body = await read_json(request, ResponsesFields)
    refuse_unserved(body)
    items = _whole_input(request, body)
    try:
        fields = chat_fields(body, items, tool_table(body.tools))
        await let_loop_go_on(request)
        n_tokens, headers = await count(services(request), fields)
    except RequestError as err:
        err.param = name_here(err.param)
        raise
    return json_response(InputTokens(n_tokens), headers=headers)


async def _answered(
    request: web.Request, fields: ChatFields, dialect: ResponsesDialect, *, truncates: bool
) -> web.StreamResponse:
    """Generate. Where the conversation is too long, drop its older half again and again if it may
    be cut."""
    sent = fields
    request.pop(BODY_DIGEST, None)  # it is remembered under its own id, and its input may grow
    while True:
        asked = structs.replace(asked_of(services(request), fields), sent=sent)
        try:
            return await generate(request, fields, asked, dialect)
        except ContextLengthExceeded as err:
            shorter = shortened(fields.messages) if truncates else None
            if shorter is None:
                if fields.stream:
                    return _too_long(request, fields, dialect, err)
                raise
            fields = structs.replace(fields, messages=shorter)


def _too_long(
    request: web.Request,
    fields: ChatFields,
    dialect: ResponsesDialect,
    error: ContextLengthExceeded,
) -> web.Response:
    """The stream of a conversation that is too long: OpenAI says it in an event, which makes agents
    shorten it."""
    reply = Reply(
        id=dialect.id_prefix + request[REQUEST_ID],
        created_at=int(time.time()),
        model=services(request).fleet.shown(fields.model),
        echo=dialect.echo,
    )
    headers = {"Content-Type": SERVER_SENT_EVENTS, **HEADERS}
    return web.Response(body=failed_stream(reply, error), headers=headers)


async def get_response(request: web.Request) -> web.Response:
    """A remembered response."""
    if request.query.get("stream") == "true":
        raise InvalidRequest("a remembered response cannot be streamed", param="stream")
    found = _found(request)
    return web.Response(body=found.document, content_type="application/json")


async def delete_response(request: web.Request) -> web.Response:
    """Forget a response."""
    found = _found(request)
    _memory(request).forget(found.id)
    return json_response({"id": found.id, "object": "response", "deleted": True})


async def cancel_response(request: web.Request) -> web.Response:
    """Only responses in the background can be cancelled, and there are none."""
    _found(request)
    raise InvalidRequest("Only background responses can be cancelled, and this one has ended")


async def list_input_items(request: web.Request) -> web.Response:
    """The items that the model was given for a response, the latest first."""
    return json_response(page_of(_found(request).inputs, dict(request.query)))


def _memory(request: web.Request) -> Memory:
    """The memory of the request's principal."""
    return request.app[MEMORIES].of(request[PRINCIPAL].name)


def _found(request: web.Request) -> Remembered:
    """The response that the path names. Raises `NotFound`."""
    response_id = request.match_info["response"]
    found = _memory(request).find(response_id)
    if found is None:
        raise NotFound(f"There is no response {response_id[:80]!r}", param="response_id")
    return found


def _whole_input(request: web.Request, body: ResponsesFields) -> list[Item]:
    """The request's items behind those of the previous response. Raises `InvalidRequest`, and
    `RequestTooLarge`."""
    recall = Recall(_memory(request), services(request).config.limits.max_body_bytes)
    own = resolved(own_items(body.input), recall.item)
    if body.previous_response_id is None:
        return own
    previous = recall.response(body.previous_response_id)
    if previous is None:
        raise PreviousResponseNotFound(
            f"There is no response {body.previous_response_id[:80]!r}; send the whole conversation",
            param="previous_response_id",
        )
    return [*previous, *own]
