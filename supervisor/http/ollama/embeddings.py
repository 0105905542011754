"""`POST /api/embed`, and its older form `/api/embeddings`."""

import time
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import json_response, services
from supervisor.http.generation.embedding import MAX_INPUTS, as_json, embed, inputs_of, n_tokens
from supervisor.http.generation.fields import Dimensions
from supervisor.http.ollama.names import served

Texts = Annotated[list[str], Meta(max_length=MAX_INPUTS)]


class EmbedBody(Struct, frozen=True, kw_only=True):
    """Inputs that are too long are cut, unless `truncate` is false."""

    model: str | None = None
    input: str | Texts | None = None
    truncate: bool | None = None
    dimensions: Dimensions | None = None


class EmbeddingsBody(Struct, frozen=True, kw_only=True):
    model: str | None = None
    prompt: str | None = None


class Embedded(Struct, frozen=True, kw_only=True):
    """Durations are nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int = 0
    prompt_eval_count: int


class OldEmbedded(Struct, frozen=True):
    embedding: list[float]


async def embed_inputs(request: web.Request) -> web.Response:
    """The embedding of each input, in their order; none of an input that is the empty text."""
    body = await read_json(request, EmbedBody)
    began = time.monotonic()
    model = served(services(request), body.model)
    found = []
    if body.input:
        found = await embed(
            request,
            model,
            inputs_of(body.input),  # type: ignore[arg-type]
            dimensions=body.dimensions,
            truncate=body.truncate is not False,
        )
    return json_response(
        Embedded(
            model=body.model or model,
            embeddings=await as_json(found),
            total_duration=int((time.monotonic() - began) * 1e9),
            prompt_eval_count=n_tokens(found),
        )
    )


async def embed_prompt(request: web.Request) -> web.Response:
    """One embedding, which is empty for no text."""
    body = await read_json(request, EmbeddingsBody)
    model = served(services(request), body.model)
    if not body.prompt:
        return json_response(OldEmbedded([]))
    found = await embed(request, model, inputs_of(body.prompt), truncate=True)
    (vector,) = await as_json(found)
    return json_response(OldEmbedded(vector))
