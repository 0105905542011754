"""Durable requests without a client: their share, their end, and how they are shown."""

import asyncio
from contextlib import suppress
from typing import Any

from gpufc.config import LimitsConfig
from supervisor.http.generation.durable import KEY
from tests.supervisor.dispatch.fakes import N_TOKENS, FakeWorker, until
from tests.supervisor.http.conftest import Answer, Service, running

JSON = {"Content-Type": "application/json"}


async def post(service: Service, key: str, **fields: Any) -> Answer:
    body = {"prompt": key, **fields}
    return await service.post("/v1/completions", body, headers={**JSON, KEY: key})


async def delete(service: Service, key: str) -> Answer:
    async with service.http.delete("/v1/requests", headers={KEY: key} if key else {}) as response:
        return Answer(response.status, response.headers, await response.read())


async def abandon(service: Service, *keys: str) -> None:
    """Post durable requests, and leave them once they are all accepted."""
    before = (await durable(service))["abandoned"]
    posts = [asyncio.create_task(post(service, key)) for key in keys]
    sequences = service.dispatcher.occupancy
    wanted = sequences.running + sequences.waiting + len(keys)

    def accepted() -> bool:
        now = service.dispatcher.occupancy
        return now.running + now.waiting == wanted

    await until(accepted)
    for one in posts:
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one
    summary = service.durable.summary
    await until(lambda: summary().abandoned == before + len(keys))


async def durable(service: Service) -> dict[str, int]:
    found: dict[str, int] = (await service.get("/stats")).json["durable"]
    return found


def finish(worker: FakeWorker) -> None:
    worker.auto = True
    worker.go()


async def test_abandoned_requests_give_places_and_slots_to_clients_that_are_there() -> None:
    async with running(slots=2, queue=6) as service:
        worker = service.fleet.start_worker(auto=False)
        await abandon(service, *(f"k{i}" for i in range(8)))
        assert len(worker.active) == 2
        honest = [asyncio.create_task(service.complete(prompt=f"honest {i}")) for i in range(4)]
        await until(lambda: service.dispatcher.occupancy.waiting == 10)
        # one of the two slots is given up, and only clients' requests get it
        await until(lambda: any("honest" in _prompt(spec) for spec, _ in worker.active.values()))
        assert len(worker.active) == 2
        assert (await service.complete()).status == 503
        assert (await post(service, "new")).status == 503
        finish(worker)
        answers = await asyncio.gather(*honest)
        assert [answer.status for answer in answers] == [200] * 4
        await until(lambda: service.dispatcher.idle)
        replayed = await post(service, "k7")
        assert replayed.json["usage"]["completion_tokens"] == N_TOKENS
        assert (await durable(service))["finished"] == 8


def _prompt(spec: Any) -> str:
    return bytes(spec.prompt_tokens).decode()


async def test_a_client_that_comes_back_is_served_like_others() -> None:
    async with running(slots=1, queue=6) as service:
        worker = service.fleet.start_worker(auto=False)
        await abandon(service, "first", "second", "third")
        back = asyncio.create_task(post(service, "third"))
        await until(lambda: service.durable.summary().abandoned == 2)
        finish(worker)
        assert (await back).status == 200
        begun = [_prompt(spec) for spec in worker.sent if hasattr(spec, "prompt_tokens")]
        assert begun.index("third") < begun.index("second")


async def test_an_unread_request_ends_in_time_and_a_read_one_does_not() -> None:
    async with running(LimitsConfig(durable_idle_s=0.2), slots=2) as service:
        worker = service.fleet.start_worker(auto=False)
        read = asyncio.create_task(post(service, "read"))
        await abandon(service, "unread")
        await until(lambda: service.dispatcher.ledger.requests.cancelled == 1)
        assert (await durable(service))["running"] == 1
        finish(worker)
        assert (await read).status == 200


async def test_a_running_request_is_deleted_by_its_key() -> None:
    async with running() as service:
        service.fleet.start_worker(auto=False)
        reader = asyncio.create_task(post(service, "k"))
        await until(lambda: service.dispatcher.occupancy.running == 1)
        assert (await delete(service, "k")).json == {"object": "durable_request", "deleted": True}
        answer = await reader
        assert (answer.status, answer.error["code"]) == (404, "not_found")
        await until(lambda: service.dispatcher.idle)
        assert service.dispatcher.ledger.requests.cancelled == 1
        assert (await delete(service, "k")).status == 404


async def test_a_stream_that_is_deleted_ends_with_an_error() -> None:
    async with running(LimitsConfig(first_byte_s=0.01)) as service:
        service.fleet.start_worker(auto=False)
        reader = asyncio.create_task(post(service, "k", stream=True))
        await until(lambda: service.dispatcher.occupancy.running == 1)
        assert (await delete(service, "k")).status == 200
        answer = await reader
        assert b'"code":"not_found"' in answer.body
        assert answer.status == 404 or answer.body.endswith(b"data: [DONE]\n\n")


async def test_a_finished_answer_is_forgotten_by_its_key(service: Service) -> None:
    first = await post(service, "k")
    assert (await durable(service))["finished"] == 1
    assert (await delete(service, "k")).status == 200
    assert await durable(service) == {"running": 0, "abandoned": 0, "finished": 0, "bytes": 0}
    assert (await post(service, "k")).json["id"] != first.json["id"]


async def test_without_a_key_nothing_is_deleted(service: Service) -> None:
    assert (await delete(service, "")).status == 400
    assert (await delete(service, "unknown")).status == 404


async def test_a_full_queue_refuses_before_the_body_is_read_but_not_a_known_key() -> None:
    async with running(slots=1, queue=1) as service:
        worker = service.fleet.start_worker(auto=False)
        known = asyncio.create_task(post(service, "k"))
        other = asyncio.create_task(service.complete())
        await until(lambda: service.dispatcher.occupancy.waiting == 1)
        third = asyncio.create_task(service.complete())  # the reserve of an owner is its share
        await until(lambda: third.done() or service.dispatcher.occupancy.waiting == 2)
        reader, writer = await asyncio.open_connection(*service.address)
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 8000000\r\n\r\n"
        )
        assert b" 503 " in await asyncio.wait_for(reader.readline(), 60)
        writer.close()
        joined = asyncio.create_task(post(service, "k"))
        await asyncio.sleep(0)
        finish(worker)
        assert (await known).json["id"] == (await joined).json["id"]
        assert (await other).status == 200
        await third


async def test_retry_after_is_the_time_that_the_tokens_asked_for_will_take() -> None:
    async with running(slots=1, queue=0) as service:
        worker = service.fleet.start_worker(auto=False)
        worker.n_tokens = 4000
        asked = asyncio.create_task(service.complete(max_tokens=1000))
        await until(lambda: len(worker.active) == 1)
        for _ in range(5):
            worker.step()
        answer = await service.complete()
        # five tokens came within a second or so, and 995 are left
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 60
        worker.n_tokens = 6
        finish(worker)
        await asked
