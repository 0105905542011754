"""One request through both processes: its id in every log, its times, its report; its counters."""

import asyncio
import json
import zipfile
from pathlib import Path

import aiohttp
import pytest

from tests.integration.commands import command
from tests.integration.fake_service import FAKE, complete, fake_text
from tests.service import service, wait_for

N_TOKENS = 60
N_DEATHS = 20


def records(log: Path) -> list[dict[str, object]]:
    """The JSON lines of a log."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


async def test_a_request_is_followed_by_its_id_over_a_worker_s_death(tmp_path: Path) -> None:
    environ = FAKE | {"GPUFC_LOG_FORMAT": "json", "GPUFC_LOG_LEVEL": "debug"}
    environ |= {"GPUFC_FAKE_SCRIPT": "step_ms=20"}
    with service(tmp_path / "run", environ=environ) as running:
        async with aiohttp.ClientSession() as http:
            prompt = f"[[kill@20 once={tmp_path / 'killed'}]] open sesame"
            body = {"prompt": prompt, "max_tokens": N_TOKENS, "stream": True}
            async with http.post(f"{running.url}/v1/completions", json=body) as response:
                request_id = response.headers["X-Request-Id"]
                await response.read()
        logs = running.runtime.logs

        def seen(log: str) -> list[str]:
            mine = [one for one in records(logs / log) if one.get("request") == request_id]
            return [str(one["event"]) for one in mine]

        front = ["sequence_sent", "sequence_sent", "request_answered"]
        wait_for(lambda: seen("front.log") == front, why="the front has logged the answer")
        worker = ["sequence_arrived", "sequence_arrived", "sequence_ended"]
        wait_for(lambda: seen("default-0.log") == worker, why="both workers have logged it")
        (answered,) = (one for one in records(logs / "front.log") if "generated_tokens" in one)
        assert answered["generated_tokens"] == N_TOKENS
        assert answered["replays"] == 1
        assert answered["status"] == 200
        assert isinstance(answered["generation_s"], float)
        archive = tmp_path / "report.zip"
        code, said = await command(running, "report", "-o", str(archive))
        assert code == 0, said
    with zipfile.ZipFile(archive) as found:
        texts = {name: found.read(name).decode() for name in found.namelist()}
    assert "sesame" not in "".join(texts.values())
    assert request_id in texts["logs/front.log"]
    assert any(name.startswith("crashes/") for name in texts)
    assert "gpufc_generation_tokens_total" in texts["metrics.txt"]
    assert json.loads(texts["status.json"])["requests"]["replayed_total"] == 1


@pytest.mark.slow
async def test_counters_go_on_over_twenty_deaths(tmp_path: Path) -> None:
    async def counted(http: aiohttp.ClientSession, url: str) -> dict[str, float]:
        async with http.get(f"{url}/metrics") as response:
            lines = (await response.text()).splitlines()
        series = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in series if "_total" in name}

    with service(tmp_path / "run", environ=FAKE) as running:
        url = running.url
        async with aiohttp.ClientSession() as http:
            before = await counted(http, url)
            for n in range(1, N_DEATHS + 1):
                status, answer, _ = await complete(http, url, "x")
                assert status == 200
                assert answer["choices"][0]["text"] == fake_text("x", 20)
                epoch = running.kill_worker()
                await asyncio.to_thread(running.wait_epoch_after, epoch)
                after = await counted(http, url)
                assert all(after[name] >= value for name, value in before.items())
                before = after
                generated = sum(
                    v for name, v in after.items() if name.startswith("gpufc_generation_tokens")
                )
                assert generated == 20 * n
            assert after['gpufc_engine_restarts_total{reason="killed"}'] == N_DEATHS
