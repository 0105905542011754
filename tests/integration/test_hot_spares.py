"""Loaded spares beside several replicas."""

import asyncio
import os
import signal
from pathlib import Path

import aiohttp

from tests.integration.commands import fake_model
from tests.integration.fake_service import ENDLESS, FAKE, WIDE, stream
from tests.service import Service, service, wait_for

OWN = {"GPUFC_FAKE_SCRIPT": "step_ms=5", "GPUFC_REPLICAS": "2", "GPUFC_STANDBY": "hot"}
ENVIRON = FAKE | WIDE | OWN
N_STREAMS = 8


def running_on(started: Service) -> list[int]:
    """The sequences of each worker."""
    return [row["sequences_running"] for row in started.status()["workers"]]


async def test_streams_of_a_dead_replica_go_on_in_its_spare_and_in_the_other_replica(
    tmp_path: Path,
) -> None:
    model = str(fake_model(tmp_path / "model.gguf"))
    with service(tmp_path / "run", "--model-path", model, environ=ENVIRON) as started:
        started.wait_all_ready(2)
        await asyncio.to_thread(
            wait_for,
            lambda: [row["state"] for row in started.status()["spares"]].count("hot") == 2,
            why="two hot spares",
        )
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            prompts = [f"long {number}" for number in range(N_STREAMS)]
            streams = [
                asyncio.create_task(stream(session, started.url, prompt, max_tokens=ENDLESS))
                for prompt in prompts
            ]
            share = N_STREAMS // 2
            await asyncio.to_thread(
                wait_for, lambda: running_on(started) == [share, share], why="streams on both"
            )
            dead = started.status()["workers"][0]["pid"]
            os.kill(dead, signal.SIGKILL)
            await asyncio.to_thread(
                wait_for,
                lambda: running_on(started) == [share // 2, share + share // 2],
                why="replays on both",
            )
            assert started.status()["workers"][0]["pid"] != dead
            for one in streams:
                one.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
