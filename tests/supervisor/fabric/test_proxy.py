"""Connections of the network's users, over the front's own HTTP application."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop

from supervisor.fabric.messages import RequestNewProxyConn
from tests.fakes.control_server import ControlServer, Peer, control_server
from tests.supervisor.dispatch.fakes import MODEL, text_of, until
from tests.supervisor.fabric.conftest import NAME, Certificates, Machine, machine

pytestmark = pytest.mark.usefixtures("quick")

PLATFORM_TOKEN = "p" * 48


@pytest.fixture
async def server(certificates: Certificates) -> AsyncIterator[ControlServer]:
    async with control_server(proxy_tls=certificates.tls) as started:
        yield started


@contextlib.asynccontextmanager
async def joined(
    server: ControlServer, ca_file: str, **fields: Any
) -> AsyncIterator[tuple[Machine, Peer]]:
    given = {"cert_chain_path": ca_file, "control_tls_server_name": NAME} | fields
    async with machine(server, **given) as made:
        yield made, await server.joined()


class User:
    """A user of the network, behind the control server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, str, bytes]:
        """Status, header and body of an answer that has a length."""
        data = b"" if body is None else json.dumps(body).encode()
        self.writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: platform.example\r\n"
            f"Authorization: Bearer {PLATFORM_TOKEN}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
            found = await self.reader.readexactly(int(fields["content-length"]))
        return int(head.split()[1]), head, found

    async def ended(self) -> bool:
        """Whether the machine has closed the connection, once it has."""
        async with asyncio.timeout(60):
            return not await self.reader.read()

    def leave(self) -> None:
        self.writer.transport.abort()


async def user(server: ControlServer, peer: Peer) -> User:
    return User(*await server.user(peer))


async def test_a_user_gets_and_posts_over_one_connection(
    server: ControlServer, ca_file: str
) -> None:
    async with joined(server, ca_file) as (made, peer):
        theirs = await user(server, peer)
        status, _, body = await theirs.ask("GET", "/v1/models")
        assert (status, json.loads(body)["data"][0]["id"]) == (200, MODEL)
        asked = {"prompt": "hello", "max_tokens": 5}
        status, _, body = await theirs.ask("POST", "/v1/completions", asked)
        assert (status, json.loads(body)["choices"][0]["text"]) == (200, text_of("hello"))
        assert made.client.status().connections == 1
        theirs.leave()
        await until(lambda: made.client.status().connections == 0)


def test_the_loop_of_a_real_front_serves_users_too(
    certificates: Certificates, ca_file: str
) -> None:
    async def ask_and_leave() -> None:
        async with (
            control_server(proxy_tls=certificates.tls) as server,
            joined(server, ca_file) as (made, peer),
        ):
            theirs = await user(server, peer)
            asked = {"prompt": "hello", "max_tokens": 5}
            status, _, body = await theirs.ask("POST", "/v1/completions", asked)
            assert (status, json.loads(body)["choices"][0]["text"]) == (200, text_of("hello"))
            made.worker.auto = False
            asking = asyncio.create_task(theirs.ask("POST", "/v1/completions", asked))
            await until(lambda: made.worker.active)
            theirs.leave()
            await until(lambda: not made.worker.active)
            with pytest.raises((EOFError, OSError)):
                await asking

    uvloop.run(ask_and_leave())


async def test_the_platforms_token_gives_no_rights_and_stands_in_no_log(
    server: ControlServer, ca_file: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with joined(server, ca_file) as (_, peer):
        theirs = await user(server, peer)
        for path in ("/stats", "/props"):
            assert (await theirs.ask("GET", path))[0] == 403
        status, _, _ = await theirs.ask("POST", "/admin/restart", {})
        assert status == 403
        theirs.leave()
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "request_answered" in logged
    assert PLATFORM_TOKEN not in logged


async def test_a_user_that_leaves_ends_its_request(server: ControlServer, ca_file: str) -> None:
    async with joined(server, ca_file) as (made, peer):
        made.worker.auto = False
        theirs = await user(server, peer)
        asking = asyncio.create_task(theirs.ask("POST", "/v1/completions", {"prompt": "hello"}))
        await until(lambda: made.worker.active)
        theirs.leave()
        await until(lambda: not made.worker.active)
        with pytest.raises(EOFError):
            await asking


async def test_connections_outlive_the_control_session(server: ControlServer, ca_file: str) -> None:
    async with joined(server, ca_file) as (_, peer):
        theirs = await user(server, peer)
        server.cut()
        await server.until(lambda: not server.active)
        assert (await theirs.ask("GET", "/v1/models"))[0] == 200
        theirs.leave()


async def test_users_beyond_the_limit_get_a_502(server: ControlServer, ca_file: str) -> None:
    async with joined(server, ca_file, network_connections=2) as (made, peer):
        served = [await user(server, peer) for _ in range(2)]
        await until(lambda: made.client.status().connections == 2)
        third = await user(server, peer)
        status, head, body = await third.ask("POST", "/v1/completions", {"prompt": "x" * 100_000})
        assert (status, json.loads(body)["error"]["message"]) == (
            502,
            "There are too many connections",
        )
        assert "Connection: close" in head
        assert await third.ended()
        assert (await served[0].ask("GET", "/v1/models"))[0] == 200
        for one in served:
            one.leave()
        await until(lambda: made.client.status().connections == 0)
        fourth = await user(server, peer)
        assert (await fourth.ask("GET", "/v1/models"))[0] == 200
        fourth.leave()


async def test_a_front_that_drains_answers_502(server: ControlServer, ca_file: str) -> None:
    async with joined(server, ca_file) as (made, peer):
        made.service.dispatcher.drain()
        theirs = await user(server, peer)
        status, _, body = await theirs.ask("GET", "/v1/models")
        assert (status, json.loads(body)["error"]["message"]) == (502, "The server is stopping")
        assert await theirs.ended()


async def test_refusals_are_bounded_too(
    server: ControlServer, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.fabric.proxy.MOST_REFUSALS", 4)
    async with joined(server, ca_file, network_connections=0) as (made, peer):
        for _ in range(16):
            peer.send(RequestNewProxyConn(bytes(16)))
        answer = server.answers[server.complete(peer, "hello", max_tokens=5)]
        assert (await answer.end()).error is None
        assert len(made.client._proxies._refusing) <= 4
        await until(lambda: not made.client._proxies._refusing)


async def test_an_id_that_the_server_does_not_know_leaves_no_connection(
    server: ControlServer, ca_file: str
) -> None:
    async with joined(server, ca_file) as (made, peer):
        peer.send(RequestNewProxyConn(bytes(16)))
        answer = server.answers[server.complete(peer, "hello", max_tokens=5)]
        await answer.end()
        proxies = made.client._proxies
        await until(lambda: not proxies._opening and not proxies.n_served)


async def test_an_untrusted_proxy_port_serves_no_user(server: ControlServer, ca_file: str) -> None:
    async with joined(server, ca_file, control_tls_server_name="other.example") as (made, peer):
        peer.send(RequestNewProxyConn(bytes(16)))
        answer = server.answers[server.complete(peer, "hello", max_tokens=5)]
        await answer.end()
        proxies = made.client._proxies
        await until(lambda: not proxies._opening)
        assert proxies.n_served == 0
