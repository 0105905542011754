"""Keys and event ids that are refused, and what a refusal leaves behind."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from supervisor.dispatch.request import Principal, Scope
from supervisor.http.edge.context import SERVICES
from supervisor.http.edge.middleware import Authenticator
from supervisor.http.edge.server import FrontRunner
from supervisor.http.routes import create_web_app
from tests.supervisor.dispatch.fakes import FAILED, generates, until
from tests.supervisor.http.conftest import Service, running
from tests.supervisor.http.durable_client import JSON, PATHS, ask, body, frames, let_go


@pytest.mark.parametrize(
    "after", ["", "x", "1", "-1", "deadbeef", "deadbeef-", "deadbeef-0", "deadbeef-01", "é-1"]
)
async def test_a_malformed_event_id_is_a_400(service: Service, after: str) -> None:
    await ask(service, stream=True)
    answer = await ask(service, stream=True, after=after)
    assert (answer.status, answer.error["param"]) == (400, "Last-Event-ID")


async def test_an_unknown_event_id_is_a_400_and_starts_nothing() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        first = await ask(service, stream=True, after="deadbeef-1")
        assert (first.status, first.error["param"]) == (400, "Last-Event-ID")
        assert generates(worker.sent) == []
        event_id = frames((await ask(service, stream=True)).body)[0][0] or ""
        tag = event_id.split("-")[0]
        for after, key in [(f"{tag}-99", "key"), ("deadbeef-1", "key"), (event_id, "other")]:
            answer = await ask(service, stream=True, after=after, key=key)
            assert (answer.status, answer.error["param"]) == (400, "Last-Event-ID")
        assert len(generates(worker.sent)) == 1


async def test_an_event_id_needs_a_key_and_a_stream(service: Service) -> None:
    for options in ({"key": None, "stream": True}, {"stream": False}):
        answer = await ask(service, after="deadbeef-1", **options)
        assert (answer.status, answer.error["param"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb"])
async def test_a_malformed_key_is_a_400(service: Service, key: str) -> None:
    answer = await ask(service, key=key)
    assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")


async def test_two_keys_are_a_400(service: Service) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), *JSON.items()]
    answer = await service.post("/v1/completions", body(""), headers=headers)
    assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")


async def test_any_printable_key_will_do(service: Service) -> None:
    for key in ("x" * 255, "a b", "".join(map(chr, range(33, 127)))):
        assert (await ask(service, key=key)).body == (await ask(service, key=key)).body


async def test_a_key_of_another_request_is_a_400(service: Service) -> None:
    first = await ask(service)
    different: list[dict[str, Any]] = [
        {"prompt": "other"},
        {"stream": True},
        {"seed": 1},
        {"path": PATHS[1]},
    ]
    for fields in different:
        answer = await ask(service, **fields)
        assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")
        assert answer.error["code"] == "invalid_value"
    spaced = b' {"max_tokens": null,  "prompt":\n"hello"}'
    headers = JSON | {"Idempotency-Key": "key"}
    same = await service.post("/v1/completions", data=spaced, headers=headers)
    assert same.body == first.body


async def test_another_principal_s_key_is_another_key() -> None:
    def by_header(request: web.Request) -> Principal:
        return Principal(request.headers["X-Who"], frozenset({Scope.GENERATE}))

    async with running() as service:
        app = create_web_app(service.app[SERVICES], Authenticator(by_header))
        await service.stop()
        service.runner = FrontRunner(app, service.config.limits)
        await service.start()
        service.fleet.start_worker()
        mine, yours = [await ask(service, headers={"X-Who": who}) for who in ("me", "you")]
        assert mine.json["id"] != yours.json["id"]
        # neither a body nor an event of mine tells whether I have used that key
        used, unused = [
            await ask(service, headers={"X-Who": "they"}, prompt="else", key=key)
            for key in ("key", "never used")
        ]
        assert used.status == unused.status == 200
        stream = await ask(service, headers={"X-Who": "me"}, key="s", stream=True)
        (event_id, _), *_ = frames(stream.body)
        errors = [
            (await ask(service, headers={"X-Who": "you"}, key=key, stream=True, after=event_id))
            for key in ("s", "never used either")
        ]
        assert [error.status for error in errors] == [400, 400]
        assert errors[0].body == errors[1].body


async def test_refusals_are_not_remembered() -> None:
    async with running(slots=1, queue=0) as service:
        assert (await ask(service, temperature=-1)).status == 400
        service.fleet.change(FAILED)
        assert (await ask(service)).status == 503
        worker = service.fleet.start_worker(auto=False)
        blocking = asyncio.create_task(service.complete())
        await until(lambda: worker.active)
        refused = await ask(service)
        assert (refused.status, refused.error["type"]) == (503, "overloaded_error")
        let_go(worker)
        await blocking
        too_long = await ask(service, prompt="x" * 4096)
        assert too_long.error["code"] == "context_length_exceeded"
        assert (await ask(service)).status == 200
