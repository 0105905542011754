"""Clients that do not read their answers: each is cut off in time, and the others are not hurt."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.fake_service import FAKE, fake_text, joined, stream, unread
from tests.service import Service, service, wait_for

N_CHOICES = 8
"""Of the request of `unread`."""
WIDE = FAKE | {
    "GPUFC_FAKE_SCRIPT": "step_ms=1",
    "GPUFC_N_CTX": "40000",
    "GPUFC_KV_CELLS": "400000",
    "GPUFC_WRITE_TIMEOUT_S": "2",
}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path / "run", environ=WIDE) as started:
        yield started


async def test_a_client_that_takes_nothing_loses_its_connection_and_its_places(
    running: Service,
) -> None:
    def are_there() -> bool:
        requests = running.status()["requests"]
        return bool(requests["running"] + requests["waiting"] == N_CHOICES)

    with running.paused():  # else they may be gone again before a look finds them
        client = unread(running.url)
        await asyncio.to_thread(wait_for, are_there, why="its choices are there")
    try:
        async with aiohttp.ClientSession() as http:
            beside = asyncio.create_task(stream(http, running.url, "beside it", max_tokens=300))
            await asyncio.to_thread(
                wait_for, lambda: running.status()["requests"]["cancelled_total"] >= 1
            )
            assert joined(await beside) == fake_text("beside it", 300)
        await asyncio.to_thread(running.wait_idle)
    finally:
        client.close()
    assert "stalled_client_cut_off" in (running.runtime.logs / "front.log").read_text()
    assert running.status()["requests"]["failed_total"] == 0
