"""What `/v1/completions` and `/v1/chat/completions` share: from fields to a stream and back."""

import time
from collections.abc import Callable

from aiohttp import web
from msgspec import Struct

from gpufc.errors import InvalidRequest
from gpufc.protocol import Prompt
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream import ResponseStream
from supervisor.http import validation
from supervisor.http.chunks import ChunkWriter
from supervisor.http.context import PRINCIPAL, REQUEST_ID, json_response, services
from supervisor.http.schemas import Answer, GenerationFields
from supervisor.http.sse import send_stream


class Dialect(Struct, frozen=True):
    """How one route answers: the prefix of its ids, its chunks, its whole answer."""

    id_prefix: str
    chunks: type[ChunkWriter]
    whole: Callable[[Answer, ResponseStream, list[str]], Struct]


async def generate(
    request: web.Request,
    body: GenerationFields,
    prompts: tuple[Prompt, ...],
    max_tokens: int | None,
    dialect: Dialect,
) -> web.StreamResponse:
    """Run a request and answer it, streamed or whole. Raises `RequestError`.

    When the client leaves, the handler is cancelled and with it the request.
    """
    front = services(request)
    limits = front.config.limits
    model = front.fleet.resolve(body.model)
    n = validation.choices(body, limits)
    if len(prompts) > limits.max_prompts:
        raise InvalidRequest(f"at most {limits.max_prompts} prompts", param="prompt")
    facts = front.dispatcher.facts(model)
    wanted = GenerationRequest(
        id=request[REQUEST_ID],
        model=model,
        prompts=prompts,
        n=n,
        sampling=validation.sampling(body, limits, facts.n_vocab if facts else None),
        max_tokens=max_tokens,
        stop=validation.stop_strings(body.stop, limits),
        cache_prompt=body.cache_prompt is not False,
        created=int(time.time()),
        replay=front.config.model.replay,
    )
    stream = front.dispatcher.submit(wanted, request[PRINCIPAL])
    try:
        if body.stream:
            return await _streamed(request, body, stream, dialect)
        texts = await stream.complete()
        return json_response(dialect.whole(_answer(stream, dialect), stream, texts))
    finally:
        stream.cancel()


async def _streamed(
    request: web.Request, body: GenerationFields, stream: ResponseStream, dialect: Dialect
) -> web.StreamResponse:
    options = body.stream_options
    chunks = dialect.chunks(
        _answer(stream, dialect),
        n_choices=stream.request.n_sequences,
        include_usage=bool(options and options.include_usage),
    )
    return await send_stream(request, stream, chunks, services(request).config.limits)


def _answer(stream: ResponseStream, dialect: Dialect) -> Answer:
    fingerprint = stream.fingerprint
    return Answer(
        id=dialect.id_prefix + stream.request.id,
        created=stream.request.created,
        model=stream.request.model,
        system_fingerprint=f"fp_{fingerprint[:12]}" if fingerprint else None,
    )
