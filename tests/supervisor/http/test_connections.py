"""Connections: their number, their deadlines, their heads, and clients that have sent all."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from gpufc.config import LimitsConfig
from supervisor.http.edge.places import RESERVE, Places
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.http.conftest import Service, running

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


def post(fields: dict[str, object], headers: bytes = b"", version: bytes = b"1.1") -> bytes:
    body = msgspec.json.encode({"prompt": "hello", **fields})
    head = (
        b"POST /v1/completions HTTP/%s\r\nHost: x\r\nContent-Type: application/json\r\n" % version
    )
    return head + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def status(self) -> int:
        """The status of the next answer; 0 if the connection is closed."""
        line = await self.reader.readline()
        return int(line.split()[1]) if line else 0

    async def rest(self) -> bytes:
        return await self.reader.read()


@asynccontextmanager
async def connected(service: Service, data: bytes = b"") -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*service.address)
    writer.write(data)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def passes(seconds: float) -> None:
    """Let time pass for the loop's timers, without waiting for it."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.time = lambda: clock() + seconds  # type: ignore[method-assign]
    for _ in range(3):
        await asyncio.sleep(0)


async def answer_to(service: Service, data: bytes) -> bytes:
    async with connected(service, data) as client:
        return await client.rest()


class Held:
    """A connection as `Places` sees it."""

    def __init__(
        self, address: str = "a", waits_since: float | None = None, *, is_idle: bool = False
    ) -> None:
        self.address = address
        self.waits_since = waits_since
        self.is_idle = is_idle


def test_the_longest_idle_connection_of_a_full_address_makes_room() -> None:
    places: Places[Held] = Places(3)
    busy, late, early = Held(), Held("a", 9.0, is_idle=True), Held("a", 5.0, is_idle=True)
    for one in (busy, late, early):
        assert places.enter(one, 1.0, 10.0).victim is None
    assert places.enter(Held("b"), 1.0, 10.0).victim is None
    entry = places.enter(Held(), 1.0, 10.0)
    assert (entry.admitted, entry.in_reserve, entry.victim) == (True, False, early)


def test_a_slow_header_makes_room_only_after_idle_connections_and_with_patience() -> None:
    places: Places[Held] = Places(2)
    slow, idle = Held("a", 1.0), Held("a", 8.0, is_idle=True)
    places.enter(slow, 1.0, 8.0)
    places.enter(idle, 1.0, 8.0)
    assert places.enter(Held("a", 8.0), 1.0, 8.0).victim is idle
    assert places.enter(Held(), 1.0, 8.0).victim is slow


def test_beyond_the_limit_a_few_are_in_reserve_until_others_leave() -> None:
    places: Places[Held] = Places(1000)
    first, *_ = held = [Held() for _ in range(1000)]
    assert not any(places.enter(one, 1.0, 0.0).in_reserve for one in held)
    beyond = [places.enter(Held(), 1.0, 0.0) for _ in range(RESERVE + 1)]
    assert [entry.admitted for entry in beyond] == [True] * RESERVE + [False]
    assert all(entry.in_reserve for entry in beyond[:-1])
    assert places.is_crowded("a")
    assert not places.is_crowded("b")
    for one in held[:RESERVE]:
        places.leave(one)
    places.leave(first)
    assert not places.is_crowded("a")


def test_all_connections_together_have_a_limit_of_their_own() -> None:
    places: Places[Held] = Places(1000, most=2)
    idle = Held("a", 3.0, is_idle=True)
    for one in (idle, Held("b")):
        places.enter(one, 1.0, 5.0)
    assert places.enter(Held("c"), 1.0, 5.0).victim is idle
    assert places.enter(Held("d"), 1.0, 5.0).in_reserve
    assert not places.enter(Held("e"), 1.0, 5.0).admitted


async def test_silent_connections_shut_out_no_honest_client() -> None:
    async with running(LimitsConfig(max_connections_per_address=4)) as service:
        service.fleet.start_worker()
        silent = [await asyncio.open_connection(*service.address) for _ in range(12)]
        async with connected(service, post({})) as client:
            assert await client.status() == 200
        for _, writer in silent:
            writer.close()


async def test_busy_connections_leave_a_reserve_for_short_routes() -> None:
    async with running(LimitsConfig(max_connections_per_address=2)) as service:
        worker = service.fleet.start_worker(auto=False)
        async with connected(service, post({})) as one, connected(service, post({})) as two:
            await until(lambda: len(worker.active) == 2)
            async with connected(service, LIVEZ) as client:
                assert await client.status() == 200
            async with connected(service, post({}, b"Connection: close\r\n")) as client:
                assert await client.status() == 503
                assert b"Retry-After: " in await asyncio.wait_for(client.rest(), 60)
            worker.auto = True
            worker.go()
            assert (await one.status(), await two.status()) == (200, 200)


@pytest.mark.parametrize("sent", [b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"\r\n", b"G"])
async def test_a_header_that_begins_with_the_connection_has_the_same_deadline(sent: bytes) -> None:
    limits = LimitsConfig(header_timeout_s=0.2, keepalive_timeout_s=3600.0)
    async with running(limits) as service:
        sock = socket.create_connection(service.address)  # its first bytes are there when accepted
        sock.sendall(sent)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(sock, 100), 60) == b""
        sock.close()


async def test_a_long_request_outlives_the_header_deadline() -> None:
    async with running(LimitsConfig(header_timeout_s=600.0)) as service:
        worker = service.fleet.start_worker(auto=False)
        request = post({})
        async with connected(service, request[:30]) as client:
            await until(lambda: any(not one.is_idle for one in service.runner.connections()))
            client.writer.write(request[30:])
            await until(lambda: len(worker.active) == 1)
            await passes(601.0)
            worker.auto = True
            worker.go()
            assert await client.status() == 200


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
async def test_a_half_closed_client_gets_its_answer(fields: dict[str, object]) -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        async with connected(service, post(fields)) as client:
            await until(lambda: len(worker.active) == 1)
            client.writer.write_eof()
            assert await client.status() == 100
            worker.auto = True
            worker.go()
            answer = await client.rest()
            assert b"HTTP/1.1 200 OK\r\n" in answer
            assert (b"data: [DONE]" if fields else b'"finish_reason":"stop"') in answer


async def test_a_half_closed_client_gets_all_pipelined_answers(service: Service) -> None:
    async with connected(service, LIVEZ * 3) as client:
        client.writer.write_eof()
        assert (await client.rest()).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_half_closed_client_of_either_version_is_answered_at_once(
    service: Service, version: bytes
) -> None:
    async with connected(service, post({}, version=version)) as client:
        client.writer.write_eof()
        assert b" 200 OK\r\n" in await client.rest()


async def test_a_client_that_leaves_is_told_from_a_half_closed_one() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        async with connected(service, post({})):
            await until(lambda: len(worker.active) == 1)
        await until(lambda: service.dispatcher.ledger.requests.cancelled == 1)


async def test_a_reader_that_leaves_a_silent_stream_is_noticed_at_once() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        async with connected(service, post({"stream": True})) as client:
            await until(lambda: len(worker.active) == 1)
            worker.step()
            await client.reader.readuntil(b"data: ")
            await client.reader.readuntil(b"\r\n")  # with anything unread it would be a reset
        await until(lambda: service.dispatcher.ledger.requests.cancelled == 1)


async def test_a_reader_that_sends_no_more_gets_the_rest_of_its_stream() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        async with connected(service, post({"stream": True})) as client:
            await until(lambda: len(worker.active) == 1)
            worker.step()
            await client.reader.readuntil(b"data: ")
            client.writer.write_eof()
            await client.reader.readuntil(b": waiting\n\n")
            worker.auto = True
            worker.go()
            assert b"data: [DONE]" in await client.rest()
        assert service.dispatcher.ledger.requests.cancelled == 0


async def test_a_half_closed_body_ends_its_request(service: Service) -> None:
    async with connected(service, post({})[:-5]) as client:
        client.writer.write_eof()
        await asyncio.wait_for(client.rest(), 60)
    await until(lambda: service.runner.n_connections == 0)


BROKEN = {
    "no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two words as Host": b"GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a path as Host": b"GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a user in Host": b"GET /livez HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a bad port": b"GET /livez HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "an open bracket": b"GET /livez HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "no version": b"GET /livez\r\n\r\n",
    "HTTP/0.9": b"GET /livez HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /livez HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/9.9": b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "empty Transfer-Encoding": b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n",
    "another Transfer-Encoding": b"POST /tokenize HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "both lengths": b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a header of control characters": b"GET /livez HTTP/1.1\r\nHost: x\r\nA: \x07\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_request_is_a_400_in_our_own_shape(service: Service, name: str) -> None:
    answer = await asyncio.wait_for(answer_to(service, BROKEN[name]), 60)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head.split(b"\r\n")[0]
    assert b"\r\nServer: gpufc" in head
    assert b"\r\nX-Request-Id: " in head
    error = msgspec.json.decode(body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_value")


@pytest.mark.parametrize("path", [b"/livez", b"/nowhere"])
async def test_an_unknown_expectation_is_a_417_in_our_own_shape(
    service: Service, path: bytes
) -> None:
    request = b"GET %s HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\n\r\n" % path
    head, _, body = (await answer_to(service, request)).partition(b"\r\n\r\n")
    assert b" 417 " in head.split(b"\r\n")[0]
    assert b"\r\nServer: gpufc" in head
    assert msgspec.json.decode(body)["error"]["code"] == "expectation_failed"


async def test_a_client_that_expects_100_gets_it_once_its_body_is_read(service: Service) -> None:
    head, _, body = post({}, b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    async with connected(service, head + b"\r\n\r\n") as client:
        assert await client.status() == 100
        await client.reader.readline()
        client.writer.write(body)
        assert await client.status() == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n", 415),
        (
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9000000\r\n",
            413,
        ),
        (b"POST /tokenize HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\n", 403),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n", 200),
    ],
)
async def test_no_body_is_invited_that_would_not_be_read(
    service: Service, request_: bytes, status: int
) -> None:
    async with connected(service, request_ + b"Expect: 100-continue\r\n\r\n") as client:
        assert await client.status() == status


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"9.9", b"1.2"])
async def test_a_refusal_is_told_in_a_version_that_is_served(
    service: Service, version: bytes
) -> None:
    request = b"GET /livez HTTP/%s\r\nHost: x\r\n\r\n" % version
    assert (await answer_to(service, request)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "host",
    [b"", b"a", b"a.b-c.localhost:80", b"127.0.0.1:8082", b"[::1]:8082", b"x:", b"a_b", b"%41"],
)
async def test_a_valid_host_is_served(service: Service, host: bytes) -> None:
    async with connected(service, b"GET /livez HTTP/1.1\r\nHost: %s\r\n\r\n" % host) as client:
        assert await client.status() == 200


@pytest.mark.parametrize(
    ("given", "echoed"),
    [("abc-1", "abc-1"), ("x" * 200, "x" * 200), ("x" * 201, None), ("a b", None), ("", None)],
)
async def test_a_client_s_id_is_echoed_beside_ours(
    service: Service, given: str, echoed: str | None
) -> None:
    async with service.http.get("/livez", headers={"X-Request-Id": given}) as response:
        assert response.headers.get("X-Client-Request-Id") == echoed
        assert response.headers["X-Request-Id"] not in ("", given)


@pytest.mark.parametrize(
    "path", ["/models", "/models/", "/v1/models/", "/livez/", "/stats/", "/v1/models/fake-model/"]
)
async def test_other_spellings_of_a_path_are_served(service: Service, path: str) -> None:
    assert (await service.get(path)).status == 200


async def test_generating_routes_have_llama_server_s_paths_too(service: Service) -> None:
    for path in ("/completions", "/v1/completions/", "/completions/"):
        assert (await service.post(path, {"prompt": "a"})).status == 200
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    assert (await service.post("/chat/completions", chat)).status == 200
    assert (await service.post("/responses", {"input": "hi"})).status == 200
    assert (await service.post("/messages", {**chat, "max_tokens": 1})).status == 404
