"""The routes for embeddings and reranking, over the fake fleet."""

import base64
import struct
from typing import Any

import openai
import pytest
from openai.types import CreateEmbeddingResponse

from gpufc.config import LimitsConfig
from gpufc.protocol import Embed, PairPrompt, Refused, TextPrompt, TokenPrompt
from supervisor.http.edge import body
from tests.fakes.facts import model_facts
from tests.supervisor.dispatch.fakes import MODEL, FakeWorker
from tests.supervisor.http.conftest import Answer, Service, running

FINGERPRINT = [float(byte) for byte in b"abc123"]
"""The fake model's vector of an input is its number of tokens, then this."""


@pytest.fixture
async def worker(service: Service) -> FakeWorker:
    found = service.fleet.dispatcher.group(MODEL)._pool.newest
    assert isinstance(found, FakeWorker)
    return found


def asked(worker: FakeWorker) -> Embed:
    (message,) = (message for message in worker.sent if isinstance(message, Embed))
    return message


def refuse(worker: FakeWorker, message: str, param: str = "input") -> None:
    """Let the worker refuse all inputs."""

    def handle(sent: Any) -> None:
        worker.tell(Refused(sent.epoch, sent.request, "invalid_value", message, param))

    worker._handle = handle  # type: ignore[method-assign]


async def embeddings(service: Service, given: Any, **fields: Any) -> Answer:
    return await service.post("/v1/embeddings", {"input": given, **fields})


@pytest.mark.parametrize(
    ("given", "n_tokens"),
    [
        ("a cat sat", [9]),
        ("", [1]),
        (["a", "cat", ""], [1, 3, 1]),
        ([1, 2, 3], [3]),
        ([[1, 2], [3]], [2, 1]),
        (["text", [1, 2]], [4, 2]),
    ],
)
async def test_every_form_of_input_is_answered_in_its_order(
    service: Service, given: Any, n_tokens: list[int]
) -> None:
    answer = await embeddings(service, given)
    assert answer.status == 200
    found = CreateEmbeddingResponse.model_validate(answer.json, strict=True)
    assert [one.embedding for one in found.data] == [[float(n), *FINGERPRINT] for n in n_tokens]
    assert [(one.index, one.object) for one in found.data] == [
        (at, "embedding") for at in range(len(n_tokens))
    ]
    total = sum(n_tokens)
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (total, total)
    assert (found.object, found.model) == ("list", MODEL)


@pytest.mark.parametrize("known", [0, 7], ids=["known later", "known"])
@pytest.mark.parametrize("size", [{}, {"dimensions": 6}, {"dimensions": 2**31 - 1}])
async def test_answers_that_are_much_larger_than_their_bodies_share_a_budget(
    size: dict[str, int], known: int
) -> None:
    async with running(LimitsConfig(max_bodies_bytes=128 * 1024)) as service:
        worker = service.fleet.start_worker()
        service.fleet.dispatcher.group(MODEL).facts = model_facts(embedding_size=known)
        answers = service.app[body.BODIES].answers
        many = ["a"] * 500
        assert (await embeddings(service, many, **size)).status == 200
        assert answers.held_bytes == 0
        answers.take(answers.for_large_bytes)
        n_asked = len(worker.sent)
        assert (await embeddings(service, many, **size)).status == 503
        assert (len(worker.sent) == n_asked) == bool(known)
        assert (await embeddings(service, "a", **size)).status == 200
        assert answers.held_bytes == answers.for_large_bytes


async def test_base64_is_little_endian_float32(service: Service) -> None:
    answer = await embeddings(service, "abc", encoding_format="base64")
    data = base64.b64decode(answer.json["data"][0]["embedding"])
    assert list(struct.unpack("<7f", data)) == [3.0, *FINGERPRINT]


async def test_openai_s_client_reads_what_it_asks_for_by_default(service: Service) -> None:
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
        found = await client.embeddings.create(model=MODEL, input=["abc"], user="u")
    assert list(found.data[0].embedding) == [3.0, *FINGERPRINT]


async def test_dimensions_reach_the_engine(service: Service, worker: FakeWorker) -> None:
    answer = await embeddings(service, "abc", dimensions=2)
    assert answer.json["data"][0]["embedding"] == [3.0, FINGERPRINT[0]]
    assert (asked(worker).dimensions, asked(worker).truncate) == (2, False)


async def test_token_ids_are_answered_with_a_warning(service: Service) -> None:
    answer = await embeddings(service, [[1, 2]])
    assert "tokenizer" in answer.headers["x-gpufc-warning"]
    assert "x-gpufc-warning" not in (await embeddings(service, "text")).headers


async def test_ids_of_another_tokenizer_are_refused_with_the_remedy(
    service: Service, worker: FakeWorker
) -> None:
    refuse(worker, "token id 100257 is not in the model's vocabulary of 1000")
    answer = await embeddings(service, [[100257]])
    assert (answer.status, answer.error["param"]) == (400, "input")
    assert "check_embedding_ctx_length=False" in answer.error["message"]
    assert "check_embedding" not in (await embeddings(service, "text")).error["message"]


@pytest.mark.parametrize(
    "given",
    [[], [[]] * 2049, ["x"] * 2049, [1, "x"], [1, [2]], None, 5, [-1], [[2**31]], {"text": "x"}],
)
async def test_malformed_input_is_refused_by_name(service: Service, given: Any) -> None:
    answer = await embeddings(service, given)
    assert answer.status == 400
    assert (answer.error["param"] or "").startswith("input")


@pytest.mark.parametrize(
    ("field", "value"),
    [("dimensions", 0), ("encoding_format", "int8"), ("model", "another")],
)
async def test_a_bad_field_is_refused_by_name(service: Service, field: str, value: Any) -> None:
    answer = await embeddings(service, "x", **{field: value})
    assert answer.status in (400, 404)
    assert answer.error["param"] == field


async def test_2048_inputs_are_answered_at_once(service: Service) -> None:
    texts = ["x" * (1 + n % 9) for n in range(2048)]
    answer = await embeddings(service, texts, encoding_format="float")
    found = [one["embedding"][0] for one in answer.json["data"]]
    assert found == [len(text) for text in texts]


@pytest.mark.parametrize("path", ["/embedding", "/embeddings"])
async def test_llama_server_s_route_has_a_list_of_lists(service: Service, path: str) -> None:
    answer = await service.post(path, {"content": ["abc", "d"]})
    assert answer.json == [
        {"index": at, "embedding": [[float(n), *FINGERPRINT]]} for at, n in enumerate((3, 1))
    ]
    assert (await service.post(path, {"input": "abc", "content": "d"})).json[0]["embedding"] == [
        [3.0, *FINGERPRINT]
    ]
    assert (await service.post(path, {})).error["param"] == "content"
    refused = await service.post(path, {"input": "abc", "embd_normalize": -1})
    assert refused.error["param"] == "embd_normalize"


async def test_ollama_s_route_has_a_list_of_vectors(service: Service, worker: FakeWorker) -> None:
    answer = await service.post(
        "/api/embed", {"model": MODEL, "input": ["abc", "d"], "dimensions": 2, "keep_alive": "5m"}
    )
    assert answer.json["embeddings"] == [[3.0, FINGERPRINT[0]], [1.0, FINGERPRINT[0]]]
    assert (answer.json["model"], answer.json["prompt_eval_count"]) == (MODEL, 4)
    assert asked(worker).truncate
    assert answer.json["total_duration"] > 0


@pytest.mark.parametrize("given", [{}, {"input": ""}, {"input": []}])
async def test_ollama_s_route_embeds_nothing_where_nothing_is_given(
    service: Service, given: dict[str, Any]
) -> None:
    answer = await service.post("/api/embed", {"model": MODEL, **given})
    assert (answer.status, answer.json["embeddings"]) == (200, [])


async def test_ollama_s_input_is_cut_only_if_it_may_be(
    service: Service, worker: FakeWorker
) -> None:
    await service.post("/api/embed", {"model": MODEL, "input": "x", "truncate": False})
    assert not asked(worker).truncate


async def test_ollama_s_older_route_has_one_flat_vector(service: Service) -> None:
    answer = await service.post("/api/embeddings", {"model": MODEL, "prompt": "a cat sat"})
    assert answer.json == {"embedding": [9.0, *FINGERPRINT]}
    assert (await service.post("/api/embeddings", {"model": MODEL})).json == {"embedding": []}


async def test_errors_of_ollama_s_routes_have_its_shape(
    service: Service, worker: FakeWorker
) -> None:
    refuse(worker, "This model does not embed texts", "model")
    answer = await service.post("/api/embed", {"model": MODEL, "input": "x"})
    assert (answer.status, answer.json) == (400, {"error": "This model does not embed texts"})


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/reranking", "/v2/rerank"])
async def test_documents_are_ranked_by_relevance(
    service: Service, worker: FakeWorker, path: str
) -> None:
    documents = ["four", "x" * 20, {"text": "seven.."}]
    answer = await service.post(path, {"query": "q", "documents": documents, "model": MODEL})
    assert answer.status == 200
    found = answer.json
    assert [one["index"] for one in found["results"]] == [1, 2, 0]
    scores = [one["relevance_score"] for one in found["results"]]
    assert scores == pytest.approx([0.2, 0.07, 0.04])
    assert "document" not in found["results"][0]
    assert found["usage"] == {"prompt_tokens": 31, "total_tokens": 31}
    assert (found["object"], found["model"]) == ("list", MODEL)
    assert found["meta"]["billed_units"] == {"search_units": 1}
    assert found["id"]
    assert asked(worker).inputs[0] == PairPrompt("q", "four")
    assert asked(worker).truncate


async def test_the_best_documents_may_be_returned_with_their_texts(service: Service) -> None:
    asked_for = {"query": "q", "documents": ["a", "bb", "ccc"], "top_n": 2}
    answer = await service.post("/v1/rerank", asked_for | {"return_documents": True})
    assert [one["document"] for one in answer.json["results"]] == [{"text": "ccc"}, {"text": "bb"}]


async def test_texts_are_ranked_in_the_form_of_hugging_face(service: Service) -> None:
    answer = await service.post(
        "/rerank", {"query": "q", "texts": ["a", "bb"], "return_text": True}
    )
    assert [(one["index"], one["text"]) for one in answer.json] == [(1, "bb"), (0, "a")]
    assert answer.json[0]["score"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "q"}, "documents"),
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": ["x"] * 2049}, "documents"),
        ({"documents": ["x"]}, "query"),
        ({"query": "q", "documents": ["x"], "top_n": 0}, "top_n"),
    ],
)
async def test_a_malformed_ranking_is_refused_by_name(
    service: Service, body: dict[str, Any], param: str
) -> None:
    answer = await service.post("/v1/rerank", body)
    assert answer.status == 400
    assert answer.error["param"] == param


async def test_the_inputs_reach_the_engine_as_texts_and_ids(
    service: Service, worker: FakeWorker
) -> None:
    await embeddings(service, ["abc", [1, 2]])
    assert asked(worker).inputs == (TextPrompt("abc"), TokenPrompt((1, 2)))
