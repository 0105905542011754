"""Every error row of `API.md` is the exception that OpenAI's own client has for its status."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from gpufc import errors
from gpufc.config import LimitsConfig
from gpufc.protocol import Prepare, Refused
from tests.supervisor.access.test_keys import key
from tests.supervisor.dispatch.fakes import FAILED, MODEL, FakeWorker, until
from tests.supervisor.dispatch.front import CRASHED
from tests.supervisor.http.conftest import Service, running
from tests.supervisor.http.test_keys import keyed
from tests.supervisor.http.test_streams import QUICK, lose_every_replay

ROWS = errors._BY_CODE.values()
"""The classes of the table's rows; `test_api_document` holds the two together."""
TYPED: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    501: openai.InternalServerError,
    503: openai.InternalServerError,
}
"""For any other status the client has no exception but `APIStatusError`."""

Call = Callable[[openai.AsyncOpenAI], Awaitable[object]]


@asynccontextmanager
async def client_of(service: Service, key: str = "none") -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0) as made:
        yield made


async def complete(client: openai.AsyncOpenAI, **fields: Any) -> object:
    return await client.completions.create(**{"model": MODEL, "prompt": "x"} | fields)


async def raised(client: openai.AsyncOpenAI, call: Call = complete) -> openai.APIStatusError:
    """What the client raises; it has the type of its status and the id of its request."""
    with pytest.raises(openai.APIStatusError) as caught:
        await call(client)
    error = caught.value
    assert type(error) is TYPED.get(error.status_code, openai.APIStatusError)
    assert error.request_id
    assert error.message
    return error


@pytest.mark.parametrize("cls", ROWS, ids=lambda cls: cls.code)
async def test_every_row_is_the_exception_of_its_status(
    service: Service, monkeypatch: pytest.MonkeyPatch, cls: type[errors.RequestError]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise cls("the reason", param="prompt")

    monkeypatch.setattr(service.dispatcher, "submit", refuse)
    async with client_of(service) as client:
        error = await raised(client)
    assert (error.status_code, error.type, error.code) == (cls.status, cls.kind, cls.code)
    assert error.param == "prompt"
    assert "the reason" in error.message


CAUSES: dict[str, Call] = {
    "invalid_value": lambda client: complete(client, temperature=-1),
    "context_length_exceeded": lambda client: complete(client, prompt="x" * 4096),
    "previous_response_not_found": lambda client: client.responses.create(
        model=MODEL, input="x", previous_response_id="resp_absent"
    ),
    "not_found": lambda client: client.get("/nowhere", cast_to=object),
    "model_not_found": lambda client: complete(client, model="absent"),
    "method_not_allowed": lambda client: client.get("/completions", cast_to=object),
    "request_too_large": lambda client: complete(client, prompt="x" * (9 << 20)),
    "unsupported_media_type": lambda client: complete(
        client, extra_headers={"Content-Type": "text/plain"}
    ),
    "expectation_failed": lambda client: complete(client, extra_headers={"Expect": "a miracle"}),
    "not_supported": lambda client: client.images.generate(prompt="a fox"),
}


@pytest.mark.parametrize("code", CAUSES)
async def test_what_a_request_causes_is_typed(service: Service, code: str) -> None:
    async with client_of(service) as client:
        assert (await raised(client, CAUSES[code])).code == code
        await complete(client)


async def test_a_failed_and_a_draining_service_are_typed_with_a_time_to_wait(
    service: Service,
) -> None:
    async with client_of(service) as client:
        service.fleet.change(FAILED)
        unavailable = await raised(client)
        service.dispatcher.drain()
        overloaded = await raised(client)
    assert [unavailable.code, overloaded.code] == ["engine_unavailable", "overloaded"]
    assert all(int(one.response.headers["Retry-After"]) for one in (unavailable, overloaded))


async def test_a_body_that_does_not_arrive_is_typed() -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield b"{"
        await until(lambda: not service.runner.server or not service.runner.server.connections)

    async with running(LimitsConfig(body_timeout_s=0.05)) as service, client_of(service) as client:
        headers: dict[str, Any] = {"headers": {"Content-Type": "application/json"}}
        error = await raised(
            client,
            lambda client: client.post(
                "/completions", cast_to=object, content=stalls(), options=headers
            ),
        )
    assert error.code == "request_timeout"


async def test_a_refusal_of_the_worker_is_typed() -> None:
    async with running() as service, client_of(service) as client:
        worker = service.fleet.start_worker()
        worker.answers_prepare = False
        asking = asyncio.create_task(raised(client))
        await until(lambda: any(isinstance(one, Prepare) for one in worker.sent))
        [asked] = [one for one in worker.sent if isinstance(one, Prepare)]
        refusal = (errors.InvalidGrammar.code, "maxLength is too large", "json_schema")
        worker.tell(Refused(worker.epoch, asked.request, *refusal))
        error = await asking
    assert (error.code, error.param) == ("invalid_grammar", "json_schema")


async def dies(service: Service, worker: FakeWorker) -> None:
    await until(lambda: worker.active)
    await lose_every_replay(service.fleet, worker)


async def kills(service: Service, worker: FakeWorker) -> None:
    """The request's worker crashes each time that it runs there alone."""
    await until(lambda: worker.active)
    while not service.dispatcher.idle:
        worker.die(CRASHED)
        worker = service.fleet.start_worker(auto=False)
        await until(lambda worker=worker: worker.active or service.dispatcher.idle)


@pytest.mark.parametrize(
    ("code", "end"), [("engine_crashed", dies), ("engine_crash_suspect", kills)]
)
async def test_an_engine_that_dies_is_typed(
    code: str, end: Callable[[Service, FakeWorker], Coroutine[Any, Any, None]]
) -> None:
    async with running() as service, client_of(service) as client:
        worker = service.fleet.start_worker(auto=False)
        asking = asyncio.create_task(raised(client))
        await end(service, worker)
        assert (await asking).code == code


async def test_a_defect_is_typed_and_keeps_its_details(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatcher, "submit", lambda *_: {}["secret"])
    async with client_of(service) as client:
        error = await raised(client)
    assert error.code == "internal_error"
    assert "secret" not in str(error)


async def test_what_a_key_may_not_do_is_typed(tmp_path: Path) -> None:
    one_only = key("one", requests_per_minute=1)
    other_models = key("other", models=("elsewhere",))
    async with keyed(tmp_path, one_only, other_models) as made:
        found = []
        for text in ("wrong", "other", "one"):
            async with client_of(made.service, text) as client:
                if text == "one":
                    await complete(client)
                found.append((await raised(client)).code)
    assert found == ["invalid_api_key", "permission_denied", "rate_limit_exceeded"]


async def test_an_error_in_the_middle_of_a_stream_is_typed() -> None:
    async with running(QUICK) as service, client_of(service) as client:
        worker = service.fleet.start_worker(auto=False)
        stream = await client.completions.create(model=MODEL, prompt="x", stream=True)
        await until(lambda: worker.active)
        worker.step()
        first = await anext(stream)
        assert first.choices[0].text
        await lose_every_replay(service.fleet, worker)
        with pytest.raises(openai.APIError) as caught:
            _ = [chunk async for chunk in stream]
    assert (caught.value.type, caught.value.code) == ("server_error", "engine_crashed")
