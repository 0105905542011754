"""Hosts, addresses and origins over HTTP, on every route before its access."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from gpufc.config import AccessConfig, Config
from supervisor.http.edge.context import Hooks
from supervisor.http.routes import ROUTES
from tests.supervisor.http.conftest import Answer, Service


@asynccontextmanager
async def serving(**access: Any) -> AsyncIterator[Service]:
    service = Service(Config(access=AccessConfig(**access)))
    await service.start()
    service.fleet.start_worker()
    try:
        yield service
    finally:
        await service.stop()


async def ask(service: Service, method: str, path: str, headers: dict[str, str]) -> Answer:
    async with service.http.request(method, path, headers=headers) as response:
        return Answer(response.status, response.headers, await response.read())


async def test_another_sites_name_reaches_no_route() -> None:
    async with serving() as service:
        for route in ROUTES:
            answer = await ask(service, route.method, route.path, {"Host": "evil.example"})
            assert answer.status == 403, route.path
        answer = await ask(service, "GET", "/v1/models", {"Host": "evil.example:8082"})
        assert (answer.error["type"], answer.headers["x-should-retry"]) == (
            "permission_error", "false"
        )  # fmt: skip
        assert "allowed_hosts" in answer.error["message"]
        for host in ("localhost", "127.0.0.1:1", "x.localhost"):
            assert (await ask(service, "GET", "/v1/models", {"Host": host})).status == 200


async def test_a_configured_name_is_served() -> None:
    async with serving(allowed_hosts=("llm.example.org",)) as service:
        answer = await ask(service, "GET", "/v1/models", {"Host": "llm.example.org"})
        assert answer.status == 200


async def test_an_address_outside_the_allowed_networks_is_refused() -> None:
    async with serving(allowed_addresses=("10.0.0.0/8",)) as service:
        answer = await ask(service, "GET", "/readyz", {"X-Forwarded-For": "10.1.1.1"})
        assert (answer.status, answer.error["type"]) == (403, "permission_error")
    async with serving(
        allowed_addresses=("10.0.0.0/8",), trusted_proxies=("127.0.0.0/8",)
    ) as service:
        for forwarded, status in (("10.1.1.1", 200), ("8.8.8.8", 403), ("10.1.1.1, 8.8.8.8", 403)):
            answer = await ask(service, "GET", "/readyz", {"X-Forwarded-For": forwarded})
            assert answer.status == status


ORIGIN = {"Origin": "https://app.example.org"}
ASKS = ORIGIN | {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type",
}


async def test_without_configured_origins_no_page_may_read_an_answer() -> None:
    async with serving() as service:
        answer = await ask(service, "OPTIONS", "/v1/chat/completions", ASKS)
        assert answer.status == 405
        other = await ask(service, "GET", "/v1/models", ORIGIN)
        for one in (answer, other):
            assert not [name for name in one.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/api/chat", "/no/route"])
async def test_a_configured_origins_page_may_ask(path: str) -> None:
    async with serving(cors_origins=("https://app.example.org",)) as service:
        asked = await ask(service, "OPTIONS", path, ASKS)
        assert asked.status == 204
        assert asked.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        answer = await ask(service, "GET", path, ORIGIN)  # an error too, so that the page sees it
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        evil = await ask(service, "OPTIONS", path, ASKS | {"Origin": "https://evil.example"})
        assert evil.status in (404, 405)
        assert "Access-Control-Allow-Origin" not in evil.headers


async def test_a_streams_headers_tell_the_origin_too() -> None:
    async with serving(cors_origins=("*",)) as service:
        answer = await service.post(
            "/v1/completions",
            {"prompt": "hi", "stream": True},
            headers={"Content-Type": "application/json", **ORIGIN},
        )
        assert answer.events
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


class Doorman:
    """Hooks that note the address which they are asked about."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def identify(self, _headers: Mapping[str, str], address: str) -> None:
        self.addresses.append(address)


async def test_a_plugin_and_the_access_log_get_the_clients_address_behind_a_proxy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    doorman = Doorman()
    access = AccessConfig(trusted_proxies=("127.0.0.0/8",))
    service = Service(Config(access=access), hooks=lambda _: cast(Hooks, doorman))
    caplog.set_level(logging.DEBUG, "access")
    await service.start()
    try:
        await ask(service, "GET", "/v1/models", {"X-Forwarded-For": "10.1.1.1"})
    finally:
        await service.stop()
    assert doorman.addresses == ["10.1.1.1"]
    assert "client=10.1.1.1 " in caplog.text
