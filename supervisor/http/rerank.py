"""`POST /v1/rerank`, in the shapes of Jina, Cohere and llama-server, and of Hugging Face's TEI.

The first three differ in fields that no other one has, so one answer has them all. TEI's request
has `texts`, and its answer is a list.
"""

from typing import Annotated

from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from gpufc.errors import InvalidRequest
from gpufc.protocol import Embedding, PairPrompt
from supervisor.dispatch.embedding import EmbeddingRequest
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import PRINCIPAL, REQUEST_ID, json_response, services
from supervisor.http.generation.embedding import MAX_INPUTS, n_tokens, numbers


class Document(Struct, frozen=True):
    """Jina's form of a document."""

    text: str


Documents = Annotated[list[str | Document], Meta(min_length=1, max_length=MAX_INPUTS)]


class RerankBody(Struct, frozen=True, kw_only=True):
    """`documents` and `return_documents`, or TEI's names of these: `texts` and `return_text`.

    Documents that are too long are cut, unless `truncate` is false.
    """

    query: str
    documents: Documents | None = None
    texts: Documents | None = None
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    truncate: bool | None = None
    model: str | None = None


class Result(Struct, frozen=True, kw_only=True):
    """`relevance_score` is from 0 to 1."""

    index: int
    relevance_score: float
    document: Document | UnsetType = UNSET


class RerankUsage(Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class BilledUnits(Struct, frozen=True):
    search_units: int = 1


class ApiVersion(Struct, frozen=True):
    version: str = "2"


class AnswerMeta(Struct, frozen=True):
    """Cohere's facts about an answer."""

    api_version: ApiVersion = ApiVersion()
    billed_units: BilledUnits = BilledUnits()


class Reranked(Struct, frozen=True, kw_only=True):
    """The most relevant documents first."""

    id: str
    object: str = "list"
    model: str
    results: list[Result]
    usage: RerankUsage
    meta: AnswerMeta = AnswerMeta()


class TextResult(Struct, frozen=True, kw_only=True):
    """A result in TEI's answer."""

    index: int
    score: float
    text: str | UnsetType = UNSET


async def rerank(request: web.Request) -> web.Response:
    """Score each document's relevance to the query."""
    body = await read_json(request, RerankBody)
    documents = body.documents if body.texts is None else body.texts
    if not documents:
        raise InvalidRequest("documents is required", param="documents")
    front = services(request)
    texts = [one if isinstance(one, str) else one.text for one in documents]
    wanted = EmbeddingRequest(
        model=front.fleet.resolve(body.model),
        inputs=tuple(PairPrompt(body.query, text) for text in texts),
        truncate=body.truncate is not False,
    )
    found = await front.dispatcher.asking.embed(wanted, request[PRINCIPAL])
    ranked = _ranked(found)[: body.top_n]
    if body.texts is not None:
        return json_response(
            [
                TextResult(index=at, score=score, text=texts[at] if body.return_text else UNSET)
                for at, score in ranked
            ]
        )
    total = n_tokens(found)
    answer = Reranked(
        id=request[REQUEST_ID],
        model=front.fleet.shown(body.model),
        results=[
            Result(
                index=at,
                relevance_score=score,
                document=Document(texts[at]) if body.return_documents else UNSET,
            )
            for at, score in ranked
        ],
        usage=RerankUsage(total, total),
    )
    return json_response(answer)


def _ranked(scores: list[Embedding]) -> list[tuple[int, float]]:
    """Indices with their scores, the best first, equals in their order."""
    scored = [(at, numbers(one.vector)[0]) for at, one in enumerate(scores)]
    return sorted(scored, key=lambda pair: -pair[1])
