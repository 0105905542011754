"""`POST /v1/embeddings`."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Literal

from aiohttp import web
from msgspec import Struct

from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import json_response, services
from supervisor.http.generation.embedding import (
    OWN_IDS,
    Input,
    as_json,
    embed,
    has_token_ids,
    inputs_of,
    n_tokens,
)
from supervisor.http.generation.fields import Dimensions

WARNING_HEADER = "x-gpufc-warning"


class EmbeddingBody(Struct, frozen=True, kw_only=True):
    """OpenAI's fields. Its clients ask for base64 by default."""

    input: Input
    model: str | None = None
    dimensions: Dimensions | None = None
    encoding_format: Literal["float", "base64"] | None = None


class EmbeddingObject(Struct, frozen=True, kw_only=True):
    """`embedding` is a list of numbers, or little-endian float32 in base64."""

    object: str = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage


async def create_embeddings(request: web.Request) -> web.Response:
    """The embedding of each input, in their order."""
    body = await read_json(request, EmbeddingBody)
    inputs = inputs_of(body.input)
    found = await embed(request, body.model, inputs, dimensions=body.dimensions)
    written: Sequence[list[float] | str]
    if body.encoding_format == "base64":
        written = [b64encode(one.vector).decode() for one in found]
    else:
        written = await as_json(found)
    total = n_tokens(found)
    answer = EmbeddingList(
        data=[EmbeddingObject(index=at, embedding=one) for at, one in enumerate(written)],
        model=services(request).fleet.shown(body.model),
        usage=EmbeddingUsage(total, total),
    )
    headers = {WARNING_HEADER: OWN_IDS} if has_token_ids(inputs) else None
    return json_response(answer, headers=headers)
