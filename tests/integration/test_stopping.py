"""The end of a front: requests end or are told, new ones are refused, nothing is left."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.integration.commands import REFUSED, command, fake_model
from tests.integration.fake_service import ENDLESS, FAKE, WIDE, complete, fake_text, joined, stream
from tests.service import Service, lives, service, wait_for

N_STREAMS = 50
ENVIRON = (
    FAKE
    | WIDE
    | {
        "GPUFC_FAKE_SCRIPT": "step_ms=5",
        "GPUFC_MAX_CONCURRENT_REQUESTS": str(N_STREAMS),
    }
)

LONG = 3000
"""Tokens of an answer that runs for longer than any look at it takes."""


class Ending:
    """A service that is being stopped, and everything that belonged to it."""

    def __init__(self, running: Service) -> None:
        self.running = running
        self.url = running.url
        self._processes = [running.front, *running.front.children(recursive=True)]

    async def until_gone(self) -> None:
        assert await asyncio.to_thread(self.running.process.wait, 60) == 0
        wait_for(lambda: not any(map(lives, self._processes)), why="all processes have ended")
        left = sorted(path.name for path in self.running.runtime.path.iterdir())
        assert [name for name in left if name not in ("crashes", "logs", "front.lock")] == []
        assert self.running.runtime.front_pid() is None
        links = [*self.running.runtime.logs.glob(".spare-*")]
        assert links == []

    async def drain(self) -> None:
        """Tell it to end, and wait until it drains."""
        self.running.process.send_signal(signal.SIGTERM)

        def drains() -> bool:
            return bool(self.running.status()["front"]["condition"]["status"] == "draining")

        await asyncio.to_thread(wait_for, drains, why="it drains")

    async def until_it_generates(self, n_running: int) -> None:
        """Wait until so many streams, whose tasks were made just now, have tokens. None ends before
        the last one is there: the worker stands meanwhile."""

        def are_there() -> bool:
            requests = self.running.status()["requests"]
            return bool(requests["running"] + requests["waiting"] == n_running)

        def have_tokens() -> bool:
            return bool(self.running.status()["tokens"]["generated_total"] > 3 * n_running)

        with self.running.paused():
            await asyncio.to_thread(wait_for, are_there, why=f"{n_running} streams are there")
        await asyncio.to_thread(wait_for, have_tokens, why="they have tokens")


def start(tmp_path: Path, timeout_s: float, **more: str) -> Any:
    environ = ENVIRON | {"GPUFC_SHUTDOWN_TIMEOUT_S": str(timeout_s)} | more
    return service(tmp_path / "run", environ=environ)


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Ending]:
    """It lets endless streams run for an hour: one that is gone has not waited for them."""
    with start(tmp_path, 3600.0) as running:
        yield Ending(running)


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Ending]:
    with start(tmp_path, 0.7) as running:
        yield Ending(running)


def session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


def assert_told_of_the_end(events: list[str]) -> None:
    assert events[-1] == "[DONE]"
    assert events.count("[DONE]") == 1
    error = json.loads(events[-2])["error"]
    assert (error["type"], error["code"]) == ("overloaded_error", "overloaded")
    assert "error" not in json.loads(events[-3])


async def test_stop_under_50_streams_ends_each_with_its_last_message(hasty: Ending) -> None:
    async with session() as http:
        streams = [
            asyncio.create_task(stream(http, hasty.url, f"stream {n}", max_tokens=ENDLESS))
            for n in range(N_STREAMS)
        ]
        await hasty.until_it_generates(N_STREAMS)
        waiting = [
            asyncio.create_task(complete(http, hasty.url, f"waiting {n}", max_tokens=ENDLESS))
            for n in range(5)
        ]
        await asyncio.to_thread(
            wait_for, lambda: hasty.running.status()["requests"]["waiting"] == 5, why="they wait"
        )
        code, said = await command(hasty.running, "stop")
        assert code == 0, said
        assert "50 requests running, 5 waiting (at most 0.7 s)" in said
        assert f"stopped (pid {hasty.running.process.pid})" in said
        for events in await asyncio.gather(*streams):
            assert_told_of_the_end(events)
        for status, body, headers in await asyncio.gather(*waiting):
            assert (status, body["error"]["code"]) == (503, "overloaded")
            assert int(headers["Retry-After"]) >= 1
    await hasty.until_gone()


async def test_what_runs_may_end_and_new_work_is_refused_meanwhile(patient: Ending) -> None:
    async with session() as http:
        streams = [
            asyncio.create_task(stream(http, patient.url, f"stream {n}", max_tokens=LONG))
            for n in range(8)
        ]
        await patient.until_it_generates(8)
        with patient.running.paused():
            await patient.drain()
            status, body, headers = await complete(http, patient.url, "too late")
            assert (status, body["error"]["type"]) == (503, "overloaded_error")
            assert int(headers["Retry-After"]) >= 1
            async with http.get(f"{patient.url}/readyz") as answer:
                assert (answer.status, (await answer.json())["status"]) == (503, "draining")
            async with http.get(f"{patient.url}/livez") as answer:
                assert answer.status == 200
        for n, events in enumerate(await asyncio.gather(*streams)):
            assert joined(events) == fake_text(f"stream {n}", LONG)
    await patient.until_gone()


@pytest.mark.parametrize("how", ["command", "second signal"])
async def test_stop_now_ends_at_once_and_cleans_up(patient: Ending, how: str) -> None:
    async with session() as http:
        streams = [
            asyncio.create_task(stream(http, patient.url, f"stream {n}", max_tokens=ENDLESS))
            for n in range(8)
        ]
        await patient.until_it_generates(8)
        if how == "command":
            assert (await command(patient.running, "stop", "--now"))[0] == 0
        else:
            await patient.drain()
            patient.running.process.send_signal(signal.SIGINT)
        for events in await asyncio.gather(*streams):
            assert_told_of_the_end(events)
        await patient.until_gone()


async def test_a_worker_that_dies_in_a_drain_is_replaced_and_streams_end(patient: Ending) -> None:
    async with session() as http:
        streams = [
            asyncio.create_task(stream(http, patient.url, f"stream {n}", max_tokens=LONG))
            for n in range(4)
        ]
        await patient.until_it_generates(4)
        with patient.running.paused():
            await patient.drain()
            psutil.Process(patient.running.worker()["pid"]).kill()
        for n, events in enumerate(await asyncio.gather(*streams)):
            assert joined(events) == fake_text(f"stream {n}", LONG)
    await patient.until_gone()


async def test_a_stop_in_the_middle_of_a_swap_ends_both(hasty: Ending, tmp_path: Path) -> None:
    slow = fake_model(tmp_path / "slow.gguf", "load_s=60")
    swap = asyncio.create_task(command(hasty.running, "swap", str(slow)))
    await asyncio.to_thread(
        wait_for,
        lambda: any(row["state"] == "loading" for row in hasty.running.status()["spares"]),
        why="the new model loads",
    )
    candidates = [psutil.Process(row["pid"]) for row in hasty.running.status()["spares"]]
    code, said = await command(hasty.running, "stop")
    assert code == 0, said
    code, said = await swap
    assert code == REFUSED, said
    assert "the server is stopping" in said.splitlines()[-1]
    await hasty.until_gone()
    assert not any(map(lives, candidates))
