"""Embeddings."""

import base64
import math
import struct
from typing import Any

from openai.types import CreateEmbeddingResponse

from tests.clients.requests.request import JSON, Answer, Check, Request, is_refused, nothing

EMBEDDINGS = "/v1/embeddings"
IDS = list(range(100, 140))


def vectors(n: int) -> Check:
    """Normalised vectors of one width, in order."""

    def check(answer: Answer) -> None:
        decoded = answer.json
        for one in decoded["data"]:
            if isinstance(one["embedding"], str):
                data = base64.b64decode(one["embedding"], validate=True)
                one["embedding"] = list(struct.unpack(f"<{len(data) // 4}f", data))
        found = CreateEmbeddingResponse.model_validate(decoded, strict=True)
        assert [one.index for one in found.data] == list(range(n))
        assert len({len(one.embedding) for one in found.data}) == 1
        assert all(abs(math.hypot(*one.embedding) - 1) < 1e-3 for one in found.data)
        assert found.usage.prompt_tokens == found.usage.total_tokens

    return check


def embedding(client: str, n: int, **body: Any) -> Request:
    return Request(client, EMBEDDINGS, {"model": "default"} | body, vectors(n), headers=JSON)


REQUESTS = [
    embedding("openai-python", 1, input="a", encoding_format="base64", user="u"),
    embedding("openai-python batch", 3, input=["a", "b c", "dé"], encoding_format="float"),
    embedding("langchain-openai ids", 2, input=[IDS, IDS[:3]], encoding_format="base64"),
    embedding("one list of ids", 1, input=IDS),
    embedding("langchain-openai empty", 1, input=""),
    embedding("litellm nulls", 1, input=["x"], dimensions=None, encoding_format=None, user=None,
              input_type="search_query", truncate="END"),
    embedding("voyage and jina", 1, input=["x"], task="retrieval.query", input_type="query",
              normalized=True, embedding_type="float"),
    Request("ids of another tokenizer", EMBEDDINGS, {"input": [[10**6]]}, is_refused("input"), 400,
            JSON),
    Request("too many inputs", EMBEDDINGS, {"input": ["a"] * 2049}, is_refused("input"), 400, JSON),
    Request("no input", EMBEDDINGS, {"model": "default"}, is_refused("input"), 400, JSON),
    Request("llama-server", "/embedding", {"content": "a"}, nothing, headers=JSON),
    Request("llama-server list", "/embeddings", {"content": ["a", "b"]}, nothing, headers=JSON),
]  # fmt: skip
