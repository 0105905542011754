"""A service whose processes all run under `python -O`. `pytest --optimized` runs every other test
that way."""

import asyncio
from pathlib import Path

import aiohttp
import psutil

from tests.integration.commands import command
from tests.integration.fake_service import FAKE, complete, fake_text, joined, stream
from tests.service import service

OPTIMIZED = {"PYTHONOPTIMIZE": "1"}
N_TOKENS = 300


async def test_streams_deaths_refusals_and_swaps_need_no_assert(tmp_path: Path) -> None:
    with service(tmp_path / "run", environ=FAKE | OPTIMIZED) as running:
        started = [running.front, *running.front.children(recursive=True)]
        assert [one.environ().get("PYTHONOPTIMIZE") for one in started] == ["1"] * len(started)
        async with aiohttp.ClientSession() as http:
            text = asyncio.create_task(stream(http, running.url, "x", max_tokens=N_TOKENS))
            epoch = await asyncio.to_thread(running.kill_worker)
            assert joined(await text) == fake_text("x", N_TOKENS)
            await asyncio.to_thread(running.wait_epoch_after, epoch)
            status, body, _ = await complete(http, running.url, "x", temperature="hot")
            assert (status, body["error"]["param"]) == (400, "temperature")
        code, said = await command(running, "restart")
        assert code == 0, said
        worker = psutil.Process(running.worker()["pid"])
        assert worker.environ()["PYTHONOPTIMIZE"] == "1"
