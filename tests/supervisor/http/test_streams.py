"""Streams over time: waiting, errors in the middle, clients that leave or do not read."""

import asyncio

import pytest

from gpufc.config import LimitsConfig
from gpufc.errors import Overloaded
from gpufc.protocol import Delta, FinishReason, Step
from supervisor.dispatch.dispatcher import Occupancy
from supervisor.dispatch.recovery import MAX_EXCUSED_KILLS, MAX_FRUITLESS_REPLAYS
from tests.supervisor.dispatch.fakes import (
    FAILED,
    FakeFleet,
    FakeWorker,
    generates,
    text_of,
    until,
)
from tests.supervisor.http.conftest import running

QUICK = LimitsConfig(first_byte_s=0.02, keepalive_comment_s=0.02)
REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s"
)


def raw(body: bytes) -> bytes:
    return REQUEST % (len(body), body)


async def test_a_waiting_stream_is_kept_alive_with_comments_and_then_goes_on() -> None:
    async with running(QUICK) as service:
        async with service.http.post(
            "/v1/completions", json={"prompt": "hello", "stream": True}
        ) as response:
            assert response.status == 200
            assert response.headers["X-Request-Id"]
            for _ in range(3):
                assert (await response.content.readuntil(b"\n\n")).startswith(b":")
            service.fleet.start_worker()
            rest = (await response.read()).decode()
        data = [line for line in rest.split("\n") if line.startswith("data: ")]
        assert data[-1] == "data: [DONE]"


async def test_tokens_without_text_do_not_silence_the_comments() -> None:
    async with running(QUICK) as service:
        worker = service.fleet.start_worker(auto=False)
        async with service.http.post(
            "/v1/completions", json={"prompt": "hello", "stream": True}
        ) as response:
            await until(lambda: worker.active)
            (no,) = worker.active
            for position in range(3):
                worker.tell(Step(worker.epoch, position, (Delta(no, position, (1,), ""),)))
                assert (await response.content.readuntil(b"\n\n")).startswith(b":")
            end = Delta(no, 3, (1,), "held back", FinishReason.STOP)
            worker.tell(Step(worker.epoch, 4, (end,)))
            assert b"held back" in await response.read()


async def test_an_error_before_the_headers_is_an_ordinary_answer() -> None:
    async with running() as service:
        asking = asyncio.create_task(service.complete(stream=True))
        await until(lambda: not service.dispatcher.idle)
        service.fleet.change(FAILED)
        answer = await asking
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "60"


async def lose_every_replay(fleet: FakeFleet, worker: FakeWorker) -> None:
    """Let workers die with the one sequence there is until it is given up."""
    worker.die()
    for _ in range(MAX_EXCUSED_KILLS + MAX_FRUITLESS_REPLAYS):
        worker = fleet.start_worker(auto=False)
        await until(lambda worker=worker: worker.active or fleet.dispatcher.idle)
        worker.die()


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_an_error_after_the_headers_is_a_frame_and_then_done(path: str) -> None:
    async with running(QUICK) as service:
        worker = service.fleet.start_worker(auto=False)
        body = {"prompt": "hello", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with service.http.post(path, json=body) as response:
            await until(lambda: worker.active)
            worker.step()
            await response.content.readuntil(b"\n\n")
            await lose_every_replay(service.fleet, worker)
            rest = (await response.read()).decode()
        *_, error, done, empty = rest.split("\n\n")
        assert '"code":"engine_crashed"' in error
        assert (done, empty) == ("data: [DONE]", "")


async def test_a_whole_answer_that_breaks_off_is_a_500() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        asking = asyncio.create_task(service.complete())
        await until(lambda: worker.active)
        worker.step()
        await lose_every_replay(service.fleet, worker)
        answer = await asking
        assert (answer.status, answer.error["code"]) == (500, "engine_crashed")


@pytest.mark.parametrize("stream", [b"true", b"false"])
async def test_a_client_that_leaves_frees_its_sequence(stream: bytes) -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        _, writer = await asyncio.open_connection(*service.address)
        writer.write(raw(b'{"prompt": "hello", "stream": %s}' % stream))
        await until(lambda: worker.active)
        worker.step()
        writer.close()
        await until(lambda: service.dispatcher.idle)
        assert not worker.active
        assert service.dispatcher.ledger.requests.cancelled == 1


async def test_a_client_that_leaves_the_queue_is_forgotten() -> None:
    async with running(slots=1) as service:
        worker = service.fleet.start_worker(auto=False)
        first = asyncio.create_task(service.complete())
        await until(lambda: worker.active)
        _, writer = await asyncio.open_connection(*service.address)
        writer.write(raw(b'{"prompt": "other"}'))
        await until(lambda: service.dispatcher.occupancy.waiting == 1)
        writer.close()
        await until(lambda: service.dispatcher.occupancy.waiting == 0)
        worker.auto = True
        worker.go()
        assert (await first).status == 200


async def test_clients_without_keys_are_told_apart_by_their_addresses() -> None:
    async with running(slots=1, queue=20) as service:
        worker = service.fleet.start_worker(auto=False)
        many = [asyncio.create_task(service.complete(prompt=f"many{i}")) for i in range(10)]
        await until(lambda: service.dispatcher.occupancy == Occupancy(1, 9))
        reader, writer = await asyncio.open_connection(
            *service.address, local_addr=("127.0.0.2", 0)
        )
        writer.write(raw(b'{"prompt": "other"}'))
        await until(lambda: service.dispatcher.occupancy.waiting == 10)
        worker.auto = True
        worker.go()
        assert await reader.readuntil(text_of("other").encode())
        begun = [bytes(one.prompt_tokens) for one in generates(worker.sent)]
        assert b"other" in begun[:3]
        assert [(await answer).status for answer in many] == [200] * 10
        writer.close()


async def test_a_reader_that_does_not_read_blocks_no_stream_and_gathers_no_writes() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        worker.n_tokens = 10**9
        _, writer = await asyncio.open_connection(*service.address)
        writer.write(raw(b'{"prompt": "x", "stream": true, "max_tokens": 4000}'))
        await until(lambda: worker.active)
        (no,) = worker.active
        big = "x" * 50_000
        (protocol,) = service.runner.server.connections if service.runner.server else ()
        for position in range(400):
            worker.tell(Step(worker.epoch, position, (Delta(no, position, (1,), big),)))
            await asyncio.sleep(0)
        transport = protocol.transport
        assert transport is not None
        # the transport's buffer is bounded; the other 20 MB wait in the log, once
        assert transport.get_write_buffer_size() < 10_000_000
        del worker.active[no]
        worker.auto = True
        worker.n_tokens = 5
        assert (await service.complete()).json["choices"][0]["text"] == text_of("hello")
        writer.close()
        await until(lambda: len(worker.sent) > 3)


async def test_shutting_down_gives_every_stream_its_last_words() -> None:
    async with running(QUICK) as service:
        worker = service.fleet.start_worker(auto=False)
        async with service.http.post(
            "/v1/completions", json={"prompt": "hello", "stream": True}
        ) as response:
            await until(lambda: worker.active)
            worker.step()
            await response.content.readuntil(b"\n\n")
            service.dispatcher.drain()
            service.dispatcher.end_all(Overloaded("stopping", retry_after_s=1))
            await service.runner.cleanup()
            rest = (await response.read()).decode()
        assert rest.endswith("data: [DONE]\n\n")
        assert "overloaded_error" in rest
