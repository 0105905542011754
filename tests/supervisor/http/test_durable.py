"""Durable requests over HTTP: joined, repeated, resumed, refused."""

import asyncio

import msgspec
import pytest

from gpufc.config import LimitsConfig
from gpufc.errors import Overloaded
from gpufc.protocol import Finished, FinishReason
from supervisor.http.edge.streams import COMMENT
from tests.supervisor.dispatch.fakes import FakeWorker, generates, text_of, until
from tests.supervisor.http.conftest import Service, running
from tests.supervisor.http.durable_client import (
    JSON,
    PATHS,
    ask,
    body,
    client_that_leaves,
    frames,
    joined,
    let_go,
    n_readers,
    plain,
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("streamed", [True, False])
async def test_it_goes_on_without_its_client_and_is_answered_when_asked_again(
    path: str, streamed: bool
) -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        async with client_that_leaves(service, path, streamed=streamed):
            await until(lambda: worker.active)
            worker.step()
        async with client_that_leaves(service, path, streamed=streamed, key=None):
            await until(lambda: len(worker.active) == 2)
        await until(lambda: service.dispatcher.ledger.requests.cancelled == 1)
        assert len(worker.active) == service.dispatcher.occupancy.running == 1
        let_go(worker)
        await until(lambda: service.dispatcher.idle)
        assert service.dispatcher.ledger.requests.succeeded == 1
        first, again = [await ask(service, path=path, stream=streamed) for _ in range(2)]
        assert first.status == 200
        assert first.body == again.body
        assert first.headers["X-Request-Id"] != again.headers["X-Request-Id"]
        assert len(generates(worker.sent)) == 2
        assert service.dispatcher.ledger.requests.succeeded == 1


async def test_joining_while_it_runs_gives_all_readers_the_same() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        options = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
        readers = [asyncio.create_task(ask(service, **options))]
        await until(lambda: len(worker.active) == 2)
        worker.step()
        readers += [asyncio.create_task(ask(service, **options)) for _ in range(2)]
        await until(lambda: n_readers(service) == 3)
        let_go(worker)
        answers = await asyncio.gather(*readers)
        assert len(generates(worker.sent)) == 2
    for answer in answers:
        *chunks, (_, last), _ = frames(answer.body)
        assert '"completion_tokens":10' in last
        for index in (0, 1):
            own = [text for choice, text, _ in plain(chunks) if choice == index]
            assert "".join(own) == text_of("hello", choice=index)
    firsts = [msgspec.json.decode(frames(answer.body)[0][1]) for answer in answers]
    assert len({(chunk["id"], chunk["created"]) for chunk in firsts}) == 1


async def test_whole_answers_are_joined_too() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        readers = [asyncio.create_task(ask(service, n=2)) for _ in range(3)]
        await until(lambda: len(worker.active) == 2)
        let_go(worker)
        answers = await asyncio.gather(*readers)
        assert len({answer.body for answer in answers}) == 1
        assert len(generates(worker.sent)) == 2
        assert (await ask(service, n=2)).body == answers[0].body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("n", [1, 3])
async def test_from_each_event_s_id_the_stream_goes_on_after_it(
    service: Service, path: str, n: int
) -> None:
    options = {"path": path, "stream": True, "n": n, "stream_options": {"include_usage": True}}
    events = frames((await ask(service, **options)).body)
    *numbered, (last_id, done) = events
    assert (last_id, done) == (None, "[DONE]")
    ids = [event_id for event_id, _ in numbered]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    for count, event_id in enumerate(ids, start=1):
        rest = frames((await ask(service, after=event_id, **options)).body)
        assert rest[-1] == (None, "[DONE]")
        expected = numbered[count:]
        if n == 1:  # text that gathered comes in one piece, so only the sums are the same
            assert joined(rest) == joined(expected)
            assert rest[-2:] == events[count:][-2:]
        else:
            assert plain(rest) == plain(expected)


async def test_a_stream_without_usage_ends_with_an_id_too(service: Service) -> None:
    events = frames((await ask(service, stream=True)).body)
    assert all(event_id for event_id, _ in events)
    rest = await ask(service, stream=True, after=events[-1][0])
    assert rest.body == b"data: [DONE]\n\n"


async def test_an_ordinary_stream_carries_no_ids(service: Service) -> None:
    answer = await ask(service, key=None, stream=True)
    assert b"id: " not in answer.body
    assert answer.body.startswith(b"data: ")


async def test_resuming_waits_for_text_to_come_and_survives_a_worker() -> None:
    limits = LimitsConfig(first_byte_s=0.02, keepalive_comment_s=3600.0)
    async with running(limits) as service:
        worker = service.fleet.start_worker(auto=False)
        async with service.http.post(
            "/v1/completions",
            json=body("", stream=True),
            headers={"Idempotency-Key": "key"},
        ) as response:
            await until(lambda: worker.active)
            worker.step()
            assert await response.content.readuntil(b"\n\n") == COMMENT
            (event,) = frames(await response.content.readuntil(b"\n\n"))
        rest = asyncio.create_task(ask(service, stream=True, after=event[0]))
        worker.die()
        service.fleet.start_worker()
        assert joined([event, *frames((await rest).body)]) == text_of("hello")
        assert service.dispatcher.ledger.requests.replayed == 1


async def give_up(worker: FakeWorker) -> None:
    await until(lambda: worker.active)
    for no in list(worker.active):
        del worker.active[no]
        worker.tell(Finished(worker.epoch, no, FinishReason.CANCELLED))


async def test_the_generation_s_own_error_is_its_answer() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        asking = asyncio.create_task(ask(service))
        await give_up(worker)
        first, again = await asking, await ask(service)
        assert (first.status, first.error["code"]) == (500, "internal_error")
        assert again.body == first.body
        assert len(generates(worker.sent)) == 1


async def test_an_error_in_a_stream_is_an_event_with_an_id() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        sent = JSON | {"Idempotency-Key": "key"}
        path = PATHS[0]
        asking = service.http.post(path, json=body(path, stream=True), headers=sent)
        opening = asyncio.ensure_future(asking)
        await until(lambda: worker.active)
        worker.step()
        async with await opening as answer:  # its headers: the first event has been sent
            await give_up(worker)
            text, error, done = frames(await answer.read())
        assert "internal_error" in error[1]
        assert done == (None, "[DONE]")
        again = await ask(service, stream=True, after=text[0])
        assert (again.status, again.error["code"]) == (500, "internal_error")
        rest = await ask(service, stream=True, after=error[0])
        assert (rest.status, rest.body) == (200, b"data: [DONE]\n\n")


async def test_running_ones_that_fill_the_store_refuse_durable_requests_only() -> None:
    async with running(LimitsConfig(max_durable_requests=2), slots=8) as service:
        worker = service.fleet.start_worker(auto=False)
        full = [asyncio.create_task(ask(service, key=key)) for key in "ab"]
        await until(lambda: len(worker.active) == 2)
        refused = await ask(service, key="c")
        assert (refused.status, refused.error["type"]) == (503, "overloaded_error")
        assert int(refused.headers["Retry-After"]) >= 1
        assert service.dispatcher.ledger.requests.rejected == 1
        ordinary = asyncio.create_task(service.complete())
        joined_one = asyncio.create_task(ask(service, key="a"))
        await until(lambda: len(worker.active) == 3)
        let_go(worker)
        assert (await ordinary).status == 200
        assert (await joined_one).body == (await full[0]).body
        await full[1]
        assert (await ask(service, key="c")).status == 200


async def test_a_finished_answer_is_forgotten_after_its_window() -> None:
    async with running(LimitsConfig(durable_window_s=0.05)) as service:
        worker = service.fleet.start_worker()
        ids: set[str] = set()
        async with asyncio.timeout(60):
            while len(ids) < 2:
                ids.add((await ask(service)).json["id"])
        assert len(generates(worker.sent)) == 2


async def test_a_drain_waits_for_it_and_shutting_down_ends_it() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        async with client_that_leaves(service, "/v1/completions", streamed=False):
            await until(lambda: worker.active)
        service.dispatcher.drain()
        assert not await service.dispatcher.wait_idle(0.02)
        assert (await ask(service, key="new")).status == 503
        await until(lambda: n_readers(service) == 0)
        joining = asyncio.create_task(ask(service, stream=False))
        await until(lambda: n_readers(service) == 1)
        service.dispatcher.end_all(Overloaded("stopping", retry_after_s=1))
        await until(lambda: service.dispatcher.idle)
        assert (await joining).status == 503


async def test_usage_counts_the_tokens_once(service: Service) -> None:
    answers = [await ask(service, max_tokens=3) for _ in range(3)]
    assert answers[2].json["usage"]["completion_tokens"] == 3
    assert service.dispatcher.ledger.tokens.generated == 3
    assert service.dispatcher.ledger.requests.succeeded == 1
