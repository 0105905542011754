"""Several models behind one front: real processes, the scripted engine, memory for one of them."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.integration.commands import command
from tests.integration.fake_service import complete, fake_text
from tests.service import Service, lives, service, wait_for

MODEL_BYTES = 48 << 20
PROCESS_BYTES = 40 << 20
"""Of a scripted worker besides, at most."""

CONFIG = """
models_dir = "{folder}/models"
memory_limit_bytes = {limit}
keepalive_comment_s = 0.05
first_byte_s = 0.05

[model]
backend = "fake"
fake_script = "step_ms=2,hold_mb={hold}"

[models.alpha]
model_path = "{folder}/alpha.gguf"
preload = true

[models.beta]
model_path = "{folder}/beta.gguf"

[models.slow]
model_path = "{folder}/slow.gguf"
fake_script = "load_s=1,step_ms=5"

[models.broken]
model_path = "{folder}/broken.gguf"
fake_script = "load_fail=1"

[models.huge]
model_path = "{folder}/huge.gguf"
"""


def _file(path: Path, n_bytes: int = MODEL_BYTES + PROCESS_BYTES) -> None:
    with path.open("wb") as file:
        file.truncate(n_bytes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    (folder / "models").mkdir()
    for name in ("alpha", "beta", "broken"):
        _file(folder / f"{name}.gguf")
    _file(folder / "slow.gguf", 1 << 20)
    _file(folder / "huge.gguf", 100 * MODEL_BYTES)
    _file(folder / "models" / "found.gguf", 1 << 20)
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Service]:
    config = folder / "gpufc.toml"
    limit = MODEL_BYTES + PROCESS_BYTES + MODEL_BYTES // 2
    config.write_text(CONFIG.format(folder=folder, limit=limit, hold=MODEL_BYTES >> 20))
    with service(folder / "run", "--config", str(config)) as started:
        yield started


def models(running: Service) -> dict[str, dict[str, Any]]:
    """The rows of `/stats`' models by name."""
    return {row["name"]: row for row in running.status()["models"]}


def state(running: Service, model: str) -> str:
    return str(models(running)[model]["state"])


async def ask(running: Service, model: str, prompt: str = "hello") -> tuple[int, Any, Any]:
    async with aiohttp.ClientSession() as session:
        return await complete(session, running.url, prompt, model=model)


async def test_a_request_by_name_loads_its_model_and_another_one_makes_room(
    running: Service,
) -> None:
    before = psutil.Process(running.worker()["pid"])
    asked = asyncio.create_task(ask(running, "beta"))
    async with aiohttp.ClientSession() as session:
        while not asked.done():
            async with session.get(f"{running.url}/readyz") as answer:
                assert answer.status == 200, await answer.text()
            await asyncio.sleep(0.02)
    status, body, _ = await asked
    assert (status, body["model"]) == (200, "beta")
    assert body["choices"][0]["text"] == fake_text("hello", 20)
    assert (state(running, "alpha"), state(running, "beta")) == ("unloaded", "ready")
    assert not lives(before)
    status, _, _ = await ask(running, "alpha")
    assert status == 200
    assert models(running)["alpha"]["n_loads"] == 2


async def test_a_broken_model_cools_down_and_the_others_serve(running: Service) -> None:
    status, body, _ = await ask(running, "broken")
    assert (status, body["error"]["code"]) == (503, "engine_unavailable")
    assert "does not load" in body["error"]["message"]
    wait_for(lambda: state(running, "broken") == "failed", why="it cools down")
    status, body, headers = await ask(running, "broken")
    assert status == 503
    assert 1 <= int(headers["Retry-After"]) <= 10
    assert models(running)["broken"]["n_loads"] == 1
    status, _, _ = await ask(running, "alpha")
    assert status == 200


async def test_a_model_that_cannot_fit_says_so_and_nothing_is_unloaded(running: Service) -> None:
    assert (await ask(running, "alpha"))[0] == 200
    status, body, _ = await ask(running, "huge")
    assert status == 503
    assert "it needs 4.7 GiB" in body["error"]["message"]
    assert state(running, "alpha") == "ready"
    assert models(running)["huge"]["n_loads"] == 0


async def test_a_waiting_stream_is_told_what_it_waits_for(running: Service) -> None:
    body = {"model": "slow", "prompt": "hi", "max_tokens": 3, "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/v1/completions", json=body) as answer,
    ):
        text = await answer.text()
    comments = [line for line in text.split("\n") if line.startswith(":")]
    assert any(line.startswith(": loading") for line in comments), text
    assert text.rstrip().endswith("data: [DONE]")


async def test_a_killed_worker_of_one_model_leaves_the_others_alone(
    running: Service, tmp_path: Path
) -> None:
    once = tmp_path / "killed"
    prompt = f"[[kill@100 once={once}]] long"
    others = [row["pid"] for row in running.status()["workers"] if row["model"] != "slow"]
    async with aiohttp.ClientSession() as session:
        status, body, _ = await complete(session, running.url, prompt, model="slow", max_tokens=300)
    assert once.exists()
    assert status == 200
    assert body["choices"][0]["text"] == fake_text(prompt, 300)
    rows = running.status()["workers"]
    assert others
    assert [row["pid"] for row in rows if row["model"] != "slow"] == others


async def test_files_of_the_folder_are_served_as_they_come_and_go(
    running: Service, folder: Path
) -> None:
    assert (await ask(running, "found"))[0] == 200
    path = folder / "models" / "later.gguf"
    _file(path, 1 << 20)
    await asyncio.to_thread(wait_for, lambda: "later" in models(running), why="it is seen")
    assert (await ask(running, "later"))[0] == 200
    path.unlink()
    await asyncio.to_thread(wait_for, lambda: "later" not in models(running), why="it is gone")
    status, body, _ = await ask(running, "later")
    assert (status, body["error"]["code"]) == (404, "model_not_found")


async def test_commands_load_unload_and_list(running: Service) -> None:
    assert (await command(running, "load", "beta"))[0] == 0
    code, output = await command(running, "models", "--json")
    rows = {row["model"]: row for row in json.loads(output)}
    assert (code, rows["beta"]["state"], rows["huge"]["state"]) == (0, "ready", "unloaded")
    assert (await command(running, "unload", "beta"))[0] == 0
    assert state(running, "beta") == "unloaded"
    code, output = await command(running, "load", "huge")
    assert code == 3
    assert "it needs 4.7 GiB" in output


async def test_ollama_says_how_long_a_model_stays(running: Service) -> None:
    async with aiohttp.ClientSession() as session:
        for keep_alive, reason in ((60, "load"), (0, "unload")):
            body = {"model": "beta", "messages": [], "keep_alive": keep_alive}
            async with session.post(f"{running.url}/api/chat", json=body) as answer:
                assert (await answer.json())["done_reason"] == reason
            if keep_alive:
                async with session.get(f"{running.url}/api/ps") as answer:
                    loaded = [row["name"] for row in (await answer.json())["models"]]
                assert "beta:latest" in loaded
    await asyncio.to_thread(
        wait_for, lambda: state(running, "beta") == "unloaded", why="it is unloaded"
    )
