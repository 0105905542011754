"""A model that was named over HTTP is held to the allowed folders at every load, not at the first
one only. Its link is exchanged meanwhile."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.commands import command
from tests.integration.fake_service import complete
from tests.models.making import made
from tests.service import Service, service, wait_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`models/link.gguf` leads to `models/one.gguf`; `outside.gguf` is as good a model."""
    models = tmp_path / "models"
    models.mkdir()
    for path in (models / "one.gguf", tmp_path / "outside.gguf"):
        shutil.copy(made("llama"), path)
    (models / "link.gguf").symlink_to(models / "one.gguf")
    return tmp_path


@pytest.fixture
def running(folder: Path) -> Iterator[Service]:
    folders = {"GPUFC_MODEL_DIRS": str(folder / "models")}
    environ = folders | {"GPUFC_STANDBY": "none", "GPUFC_N_THREADS": "1"}
    arguments = ("--model-path", str(made("llama")), "--n-ctx", "256")
    with service(folder / "run", *arguments, environ=environ) as started:
        yield started


async def test_an_exchanged_link_is_not_followed_out_of_the_folder(
    running: Service, folder: Path
) -> None:
    link, headers = folder / "models" / "link.gguf", token(running)
    async with aiohttp.ClientSession() as http:

        async def swap() -> int:
            url, body = f"{running.url}/admin/swap", {"model_path": str(link)}
            async with http.post(url, json=body, headers=headers) as answer:
                return answer.status

        assert await swap() == 200
        fresh = folder / "fresh"
        fresh.symlink_to(folder / "outside.gguf")
        fresh.rename(link)
        assert await swap() == 403
        code, said = await command(running, "restart")
        assert code != 0
        assert "does not lie in an allowed folder" in said
        status, _, _ = await complete(http, running.url, "the one before serves on")
        assert status == 200
        await asyncio.to_thread(running.kill_worker)
        await asyncio.to_thread(wait_for, lambda: running.worker()["state"] == "failed")
        assert "does not lie in an allowed folder" in running.worker()["detail"]
        back = folder / "back"
        back.symlink_to(folder / "models" / "one.gguf")
        back.rename(link)
        await asyncio.to_thread(running.wait_ready)


def token(running: Service) -> dict[str, str]:
    return {"Authorization": f"Bearer {running.runtime.admin_token.read_text().strip()}"}
