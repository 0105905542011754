"""The inputs and the vectors that all routes for embeddings share."""

import asyncio
import struct
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from gpufc.errors import InvalidRequest, RequestError
from gpufc.protocol import Embedding, EmbeddingInput, TextPrompt, TokenPrompt
from supervisor.dispatch.embedding import EmbeddingRequest
from supervisor.http.edge.body import hold_answer
from supervisor.http.edge.context import PRINCIPAL, services
from supervisor.http.generation.fields import MAX_TOKEN_IDS, TokenId, TokenIds

MAX_INPUTS = 2048
"""Of one request. OpenAI's limit, which its clients fill."""

Input = str | Annotated[list[str | TokenId | TokenIds], Meta(max_length=MAX_TOKEN_IDS)]
"""A text, a list of texts, a list of token ids, or a list of such lists."""

OWN_IDS = "token ids are read as those of this model's tokenizer"
"""The warning of an answer to token ids: a client that sends another tokenizer's gets vectors
without meaning."""

REMEDY = (
    "; token ids must come from this model's tokenizer: send texts instead (LangChain:"
    " OpenAIEmbeddings(check_embedding_ctx_length=False))"
)

SLICE_NUMBERS = 16_384
"""So many numbers are written at once. Meanwhile no stream goes on."""

NUMBER_BYTES = 28
"""Memory of a vector's number until it is answered: as it came, and twice as text."""


def inputs_of(given: Input, param: str = "input") -> tuple[EmbeddingInput, ...]:
    """The inputs in a field. Raises `InvalidRequest`."""
    if isinstance(given, str):
        return (TextPrompt(given),)
    kinds = set(map(type, given))
    if kinds == {int}:
        return (TokenPrompt(tuple(given)),)  # type: ignore[arg-type]
    if not kinds or not kinds <= {str, tuple}:
        raise InvalidRequest(
            f"{param} is a string, a list of strings, a list of token ids, or a list of such"
            " lists, and not empty",
            param=param,
        )
    if len(given) > MAX_INPUTS:
        raise InvalidRequest(f"{param} has at most {MAX_INPUTS} entries", param=param)
    return tuple(
        TextPrompt(item) if isinstance(item, str) else TokenPrompt(item)  # type: ignore[arg-type]
        for item in given
    )


def has_token_ids(inputs: Sequence[EmbeddingInput]) -> bool:
    return any(isinstance(one, TokenPrompt) for one in inputs)


async def embed(
    request: web.Request,
    model: str | None,
    inputs: tuple[EmbeddingInput, ...],
    *,
    dimensions: int | None = None,
    truncate: bool = False,
) -> list[Embedding]:
    """The embeddings of all inputs. Raises `RequestError`; one about token ids names the remedy."""
    front = services(request)
    model = front.fleet.resolve(model)
    wanted = EmbeddingRequest(model=model, inputs=inputs, truncate=truncate, dimensions=dimensions)
    facts = front.dispatcher.facts(model)
    known = facts.embedding_size if facts else 0
    size = min(dimensions or known, known)
    if size:  # else the model is yet to be loaded
        hold_answer(request, len(inputs) * size * NUMBER_BYTES)
    try:
        found = await front.dispatcher.asking.embed(wanted, request[PRINCIPAL])
        if not size:
            hold_answer(request, sum(len(one.vector) for one in found) // 4 * NUMBER_BYTES)
        return found
    except InvalidRequest as err:
        raise _with_remedy(err, inputs) from err


def _with_remedy(err: InvalidRequest, inputs: Sequence[EmbeddingInput]) -> RequestError:
    is_about_ids = err.message.startswith("token id") and has_token_ids(inputs)
    return type(err)(err.message + REMEDY * is_about_ids, param=err.param)


def numbers(vector: bytes) -> tuple[float, ...]:
    """A vector's numbers."""
    return struct.unpack(f"<{len(vector) // 4}f", vector)


async def as_json(embeddings: Iterable[Embedding]) -> list[Any]:
    """Each vector, in place of its `list[float]`, as JSON. Other requests go on meanwhile."""
    found: list[Any] = []
    n_written = 0
    for one in embeddings:
        found.append(msgspec.Raw(msgspec.json.encode(numbers(one.vector))))
        n_written += len(one.vector) // 4
        if n_written >= SLICE_NUMBERS:
            n_written = 0
            await asyncio.sleep(0)
    return found


def n_tokens(embeddings: Iterable[Embedding]) -> int:
    """The tokens of all inputs."""
    return sum(one.n_tokens for one in embeddings)
