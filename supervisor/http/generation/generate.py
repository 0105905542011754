"""The path that all generating routes share: from fields to a stream, and back to an answer."""

import time

from aiohttp import web
from msgspec import Struct, structs

from gpufc.ids import RequestId
from gpufc.protocol import LogprobsWanted, Prompt, TextPrompt, Tokens
from supervisor.dispatch.request import GenerationRequest, ReadingOf, plain
from supervisor.dispatch.stream import ResponseStream
from supervisor.http.edge import access_log
from supervisor.http.edge.body import BODY_DIGEST, let_loop_go_on
from supervisor.http.edge.context import (
    PRINCIPAL,
    REQUEST_ID,
    STREAM,
    Services,
    built_response,
    services,
)
from supervisor.http.edge.errors import ANTHROPIC_VERSION
from supervisor.http.edge.streams import send_stream
from supervisor.http.generation import validation
from supervisor.http.generation.adapters import chosen
from supervisor.http.generation.answer_cache import ANSWERS, CachePlace, key_of
from supervisor.http.generation.constraints import constraint_of
from supervisor.http.generation.dialect import Dialect, Exchange
from supervisor.http.generation.durable import (
    DurableReader,
    find_or_start,
    numbered,
    read_headers,
)
from supervisor.http.generation.fields import GenerationFields

DURABLE, REPLICATED, LOCAL = "x-gpufc-durable", "replicated", "local"
"""The header that says whether other fronts could go on with a durable request."""


class Asked(Struct, frozen=True):
    """The part of a request that a route reads from its own fields. `reading` is the answer's;
    `headers` go with it. `best_of` is the number of choices to generate for each prompt where it is
    not `n`. `sent` is what a durable request is known by, where the fields are not all that the
    client has sent. `predicted` may be like the answer."""

    prompts: tuple[Prompt, ...]
    max_tokens: int | None
    reading: ReadingOf = plain
    headers: dict[str, str] = {}
    logprobs: LogprobsWanted | None = None
    best_of: int | None = None
    sent: Struct | None = None
    predicted: str = ""


async def generate(
    request: web.Request, body: GenerationFields, asked: Asked, dialect: Dialect
) -> web.StreamResponse:
    """Run a request and answer it, streamed or whole. Raises `RequestError`.

    When the client leaves, the handler is cancelled, and with it the request unless it is durable.
    """
    await let_loop_go_on(request)
    wish = read_headers(request, streamed=bool(body.stream))
    biases = await _biases(request, body)
    predicted = await _predicted(request, body, asked)
    front = services(request)

    def accept() -> GenerationRequest:
        return accepted(front, request[REQUEST_ID], body, asked, biases, predicted)

    if wish is not None:
        found = await find_or_start(request, wish, dialect.id_prefix, asked.sent or body, accept)
        request[STREAM] = found.stream
        headers = asked.headers
        if front.cells is not None:
            headers = {**headers, DURABLE: REPLICATED if found.is_replicated else LOCAL}
        with DurableReader(found, wish.position) as reader:
            return await _send(request, body, found.stream, reader, dialect, headers)
    wanted = accept()
    # a plugin sees every request, so none is answered from the cache
    place = None if front.hooks else _place_in_cache(request, body, asked, wanted)
    if place is not None and (known := place.known()) is not None:
        return known
    access_log.asked(request, wanted)
    stream = front.submit(wanted, request[PRINCIPAL])
    request[STREAM] = stream
    try:
        answer = await _send(request, body, stream, stream, dialect, asked.headers)
    finally:
        stream.cancel()
    return answer if place is None else place.kept(answer)


def _place_in_cache(
    request: web.Request, body: GenerationFields, asked: Asked, wanted: GenerationRequest
) -> CachePlace | None:
    """Where the answer is kept for exact repeats; None if it is not."""
    cache, sent = request.app[ANSWERS], request.get(BODY_DIGEST)
    if cache is None or sent is None or body.stream or body.cache_prompt is False:
        return None
    facts = services(request).dispatcher.facts(wanted.model)
    sampling = wanted.sampling
    is_greedy = sampling.temperature == 0 and not sampling.mirostat
    if facts is None or not (is_greedy or (body.seed is not None and body.seed >= 0)):
        return None
    key = key_of(
        *(request[PRINCIPAL], facts.fingerprint, facts.chat_template),
        *(wanted.model, request.path_qs, sent),
        structs.replace(sampling, seed=0) if is_greedy else sampling,
        request.headers.get(ANTHROPIC_VERSION),
    )
    is_read = "no-cache" not in request.headers.get("Cache-Control", "")
    return CachePlace(cache, key, asked.headers, is_read=is_read)


async def _biases(request: web.Request, body: GenerationFields) -> dict[int, float]:
    """`logit_bias` by token. Texts in it are tokenized by a worker, one after another."""
    front = services(request)
    limits = front.config.limits
    given = validation.biases(body, limits)
    model = front.fleet.resolve(body.model)
    tokens = {
        text: await front.dispatcher.asking.prepare(
            model, TextPrompt(text, add_special=False), None
        )
        for text in given
        if isinstance(text, str)
    }
    facts = front.dispatcher.facts(model)
    return validation.bias_of_tokens(given, tokens, limits, facts.n_vocab if facts else None)


async def _predicted(request: web.Request, body: GenerationFields, asked: Asked) -> Tokens:
    """The tokens of a predicted answer, no more than a context has."""
    if not asked.predicted:
        return ()
    front = services(request)
    model = front.fleet.resolve(body.model)
    prompt = TextPrompt(asked.predicted, add_special=False, parse_special=False)
    tokens = await front.dispatcher.asking.prepare(model, prompt, None)
    facts = front.dispatcher.facts(model)
    return tuple(tokens[: facts.n_ctx if facts else 0])


def accepted(
    front: Services,
    request_id: RequestId,
    body: GenerationFields,
    asked: Asked,
    biases: dict[int, float],
    prediction: Tokens = (),
) -> GenerationRequest:
    """The request, within all limits and with its seed fixed. Raises `RequestError`.

    `biases` are those of `body.logit_bias`, by token.
    """
    limits = front.config.limits
    model = front.fleet.resolve(body.model)
    n = validation.choices(body, limits)
    return GenerationRequest(
        id=request_id,
        model=model,
        prompts=asked.prompts,
        n=asked.best_of or n,
        sampling=validation.sampling(body, front.fleet.sampling(model), biases),
        max_tokens=asked.max_tokens,
        stop=validation.stop_strings(body.stop, limits),
        cache_prompt=body.cache_prompt is not False,
        created=int(time.time()),
        replay=front.fleet.replay(model),
        constraint=constraint_of(body),
        reading=asked.reading,
        adapters=chosen(body.lora, body.model, front.fleet.adapters(model)),
        logprobs=asked.logprobs,
        rules=validation.rules(body, asked.max_tokens),
        prediction=prediction,
    )


async def _send(
    request: web.Request,
    body: GenerationFields,
    stream: ResponseStream,
    reader: ResponseStream | DurableReader,
    dialect: Dialect,
    headers: dict[str, str],
) -> web.StreamResponse:
    """Answer with the events that `reader` reads. It may be the stream itself."""
    model = services(request).fleet.shown(body.model)
    exchange = _exchange(stream, reader, dialect, model)
    if not body.stream:
        choices = await reader.complete()
        exchange = _exchange(stream, reader, dialect, model)  # a worker is known by now
        n_values = sum(len(one.logprobs) + len(one.prompt_logprobs) for one in choices)
        return await built_response(
            lambda: dialect.whole(exchange, choices), n_values, headers=headers
        )
    encoder = dialect.encoder(exchange)
    if isinstance(reader, DurableReader):
        encoder = numbered(encoder, reader)
    front, served = services(request), stream.request.model
    shown = front.models
    return await send_stream(
        request,
        reader,
        encoder,
        front.config.limits,
        headers,
        note=lambda: "" if shown is None else shown.note(served),
    )


def _exchange(
    stream: ResponseStream, reader: ResponseStream | DurableReader, dialect: Dialect, model: str
) -> Exchange:
    """`model` is the name to show."""
    wanted, fingerprint = stream.request, reader.fingerprint
    return Exchange(
        id=dialect.id_prefix + wanted.id,
        created=wanted.created,
        model=model,
        system_fingerprint=f"fp_{fingerprint[:12]}" if fingerprint else None,
        request=wanted,
        usage=lambda: reader.usage,
        usage_of=stream.usage_of,
        tokens_of=stream.tokens_of,
        timings=stream.timings,
    )
