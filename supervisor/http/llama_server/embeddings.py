"""`POST /embedding` and `/embeddings`, with llama-server's fields and answers."""

from aiohttp import web
from msgspec import Struct

from gpufc.errors import InvalidRequest
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import json_response
from supervisor.http.generation.embedding import Input, as_json, embed, inputs_of
from supervisor.http.generation.fields import Dimensions

EUCLIDEAN = 2
"""llama-server's number of the norm (L2), which is its default too."""


class NativeEmbeddingBody(Struct, frozen=True, kw_only=True):
    """`input` goes before `content`, as in llama-server."""

    content: Input | None = None
    input: Input | None = None
    embd_normalize: int | None = None
    dimensions: Dimensions | None = None
    model: str | None = None


class NativeEmbedding(Struct, frozen=True):
    """A list of one vector: pooling leaves no more."""

    index: int
    embedding: list[list[float]]


async def create_embedding(request: web.Request) -> web.Response:
    """The embedding of each input, in their order."""
    body = await read_json(request, NativeEmbeddingBody)
    given = body.content if body.input is None else body.input
    if given is None:
        raise InvalidRequest("content or input is required", param="content")
    if body.embd_normalize not in (None, EUCLIDEAN):
        raise InvalidRequest("embd_normalize is 2 (L2)", param="embd_normalize")
    found = await embed(request, body.model, inputs_of(given), dimensions=body.dimensions)
    vectors = await as_json(found)
    return json_response([NativeEmbedding(at, [vector]) for at, vector in enumerate(vectors)])
