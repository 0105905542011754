"""The configuration of a running service is read again: by command, signal, route and file."""

import asyncio
import json
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.integration.commands import REFUSED, command
from tests.integration.fake_service import fake_text
from tests.service import service, wait_for

N_STREAMS = 100
N_TOKENS = 60


def configured(**keys: object) -> str:
    """A TOML file. JSON's values of these kinds are TOML's."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


async def read_stream(
    http: aiohttp.ClientSession, url: str, prompt: str, begun: asyncio.Event
) -> str:
    """The whole text of a stream that ends as it should."""
    body = {"prompt": prompt, "max_tokens": N_TOKENS, "stream": True}
    events = []
    async with http.post(f"{url}/v1/completions", json=body) as response:
        assert response.status == 200
        async for line in response.content:
            if line.startswith(b"data: "):
                events.append(line[6:].strip())
                begun.set()
    assert events.pop() == b"[DONE]"
    choices = [json.loads(event)["choices"] for event in events]
    return "".join(choice["text"] for found in choices for choice in found)


async def test_limits_change_under_a_hundred_streams_and_none_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "gpufc.toml"
    keys: dict[str, object] = {
        "reload_on_change": False,
        "max_concurrent_requests": N_STREAMS,
        "max_queue": 100,
        "fake_script": "step_ms=20",
        "backend": "fake",
    }
    file.write_text(configured(**keys))
    with service(tmp_path / "run", "--config", str(file)) as running:
        url = running.url
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            begun = [asyncio.Event() for _ in range(N_STREAMS)]
            streams = [
                asyncio.create_task(read_stream(http, url, f"prompt {number}", one))
                for number, one in enumerate(begun)
            ]
            await asyncio.gather(*(one.wait() for one in begun))

            file.write_text(configured(**keys, max_n="many"))
            code, said = await command(running, "reload")
            assert code == 2
            assert "Nothing was changed: bad value 'many' for max_n" in said
            file.write_text(configured(**keys, restart_limit=3))
            assert (await command(running, "reload"))[0] == REFUSED

            before = running.worker()
            keys |= {"max_n": 2, "max_concurrent_requests": N_STREAMS + 4}
            file.write_text(configured(**keys))
            code, said = await command(running, "reload", "--dry-run")
            assert code == 0
            assert "max_n: 8 → 2" in said
            code, said = await command(running, "reload")
            assert code == 0, said
            assert f"max_concurrent_requests: {N_STREAMS} → {N_STREAMS + 4}" in said
            assert "is ready" in said
            texts = await asyncio.gather(*streams)
        assert texts == [fake_text(f"prompt {n}", N_TOKENS) for n in range(N_STREAMS)]
        assert running.worker()["epoch"] > before["epoch"]
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{url}/v1/completions", json={"prompt": "x", "n": 3}) as response,
        ):
            assert response.status == 400


@pytest.mark.parametrize("way", ["signal", "file"])
def test_a_signal_and_a_changed_file_reload_too(tmp_path: Path, way: str) -> None:
    file = tmp_path / "gpufc.toml"
    file.write_text(configured(backend="fake", max_n=4))
    with service(tmp_path / "run", "--config", str(file)) as running:
        file.write_text(configured(backend="fake", max_n=3))
        if way == "signal":
            running.process.send_signal(signal.SIGHUP)

        def in_force() -> bool:
            values = {row["key"]: row["value"] for row in running.control.config()}
            return values["max_n"] == 3

        wait_for(in_force, why="the new value is in force")
        assert running.worker()["state"] == "ready"
