"""The list of models has the form of the API that its client speaks."""

import anthropic
import pytest
from anthropic.types import ModelInfo

from tests.supervisor.dispatch.fakes import MODEL, N_CTX
from tests.supervisor.http.conftest import Answer, Service, running

VERSION = {"anthropic-version": "2023-06-01"}


async def get(service: Service, path: str) -> Answer:
    """As a client of Anthropic's. A redirect would count as a failure."""
    async with service.http.get(path, headers=VERSION, allow_redirects=False) as response:
        return Answer(response.status, response.headers, await response.read())


async def test_anthropic_s_clients_get_their_form(service: Service) -> None:
    answer = await get(service, "/v1/models?limit=1000")
    assert answer.status == 200
    found = answer.json
    assert (found["has_more"], found["first_id"], found["last_id"]) == (False, MODEL, MODEL)
    (model,) = (ModelInfo.model_validate(item) for item in found["data"])
    assert (model.id, model.display_name, model.type) == (MODEL, MODEL, "model")
    assert (model.max_input_tokens, model.max_tokens) == (N_CTX, N_CTX)
    assert found["data"][0]["created_at"].endswith("Z")


async def test_other_clients_get_openai_s(service: Service) -> None:
    found = (await service.get("/v1/models?limit=1000")).json
    assert (found["object"], found["data"][0]["object"]) == ("list", "model")
    assert (await service.get(f"/v1/models/{MODEL}")).json["object"] == "model"


async def test_the_sdk_lists_and_finds_models(
    service: Service, client: anthropic.AsyncAnthropic
) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve("default")).id == MODEL


async def test_an_unknown_model_is_anthropic_s_error_for_its_clients(
    client: anthropic.AsyncAnthropic, service: Service
) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        await client.models.retrieve("gpt-9")
    assert caught.value.type == "not_found_error"
    assert caught.value.request_id
    answer = await service.get("/v1/models/gpt-9")
    assert answer.error["code"] == "model_not_found"
    assert "request-id" not in answer.headers


async def test_a_model_that_is_not_loaded_has_no_known_limits() -> None:
    async with running() as service:
        (model,) = (await get(service, "/v1/models")).json["data"]
        assert (model["max_input_tokens"], model["max_tokens"]) == (None, None)
        ModelInfo.model_validate(model)
