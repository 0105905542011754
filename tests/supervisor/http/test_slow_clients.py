"""Clients that send too slowly, nothing, or no HTTP."""

import asyncio

import msgspec
import pytest

from gpufc.config import LimitsConfig
from tests.supervisor.http.conftest import Service, running


async def test_a_slow_header_is_cut_off() -> None:
    async with running(LimitsConfig(header_timeout_s=0.05)) as service:
        reader, writer = await asyncio.open_connection(*service.address)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_an_idle_connection_is_closed_in_time() -> None:
    async with running(LimitsConfig(keepalive_timeout_s=0.05)) as service:
        reader, writer = await asyncio.open_connection(*service.address)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_a_stalled_body_is_cut_off() -> None:
    async with running(LimitsConfig(body_timeout_s=0.05)) as service:
        reader, writer = await asyncio.open_connection(*service.address)
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        answer = await asyncio.wait_for(reader.read(), 60)
        assert answer.startswith(b"HTTP/1.1 408")
        writer.close()


@pytest.mark.parametrize(
    "data", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"]
)
async def test_what_is_no_http_gets_the_same_kind_of_answer(service: Service, data: bytes) -> None:
    reader, writer = await asyncio.open_connection(*service.address)
    writer.write(data + b"\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 60)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head.split(b"\r\n")[0]
    assert b"X-Request-Id" in head
    assert msgspec.json.decode(body)["error"]["type"] == "invalid_request_error"
    writer.close()
