"""A real Prometheus scrapes the front, and sees no counter reset when workers die."""

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.supervisor.dispatch.fakes import N_TOKENS
from tests.supervisor.http.conftest import Service, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("prometheus"), reason="prometheus (Debian's package) is missing"
    ),
]


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Prometheus:
    """A running server, asked through its HTTP API."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def query(self, expression: str) -> float | None:
        """The sum of an expression's values; None before there are any."""
        with contextlib.suppress(aiohttp.ClientConnectionError):
            parameters = {"query": f"sum({expression})"}
            async with self._http.get(f"{self._url}/api/v1/query", params=parameters) as response:
                if response.status == 200:
                    found = (await response.json())["data"]["result"]
                    return float(found[0]["value"][1]) if found else None
        return None

    async def until(self, expression: str, value: float) -> None:
        async with asyncio.timeout(60):
            while await self.query(expression) != value:  # noqa: ASYNC110 - another process's state
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def scraping(service: Service, folder: Path) -> AsyncIterator[Prometheus]:
    targets = [{"targets": [service.url.removeprefix("http://")]}]
    job = {"job_name": "gpufc", "scrape_interval": "200ms", "scrape_timeout": "200ms"}
    config = folder / "prometheus.json"
    config.write_text(json.dumps({"scrape_configs": [job | {"static_configs": targets}]}))
    address = f"127.0.0.1:{unused_port()}"
    child = await asyncio.create_subprocess_exec(
        *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address={address}", "--log.level=error"),
    )
    try:
        async with aiohttp.ClientSession() as http:
            yield Prometheus(f"http://{address}", http)
    finally:
        child.kill()
        await child.wait()


async def test_it_reads_the_front_s_series(tmp_path: Path) -> None:
    async with running() as service, scraping(service, tmp_path) as prometheus:
        n_requests = 3
        for n in range(1, n_requests + 1):
            worker = service.fleet.start_worker()
            await service.complete()
            await prometheus.until("gpufc_generation_tokens_total", N_TOKENS * n)
            worker.die()
        assert await prometheus.query("up") == 1
        assert await prometheus.query("resets(gpufc_generation_tokens_total[5m])") == 0
        assert await prometheus.query("vllm:num_requests_running") == 0
        assert await prometheus.query("gpufc_time_to_first_token_seconds_count") == n_requests
