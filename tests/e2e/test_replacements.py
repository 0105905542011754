"""The real engine replaced under a stream: what it had computed goes with it."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.integration.commands import command
from tests.integration.fake_service import stream
from tests.service import Service, service, wait_for

pytestmark = pytest.mark.model

PROMPT = "Foxes live in the wood and hens live in the yard. " * 20
N_PROMPT = 200
"""Tokens of the prompt, at least."""


async def recomputed(running: Service, name: str, *arguments: str) -> int:
    """Replace the worker in the middle of a stream; how many tokens it computed once more."""

    def generates(more: int) -> int:
        """Wait for so many more tokens; returns how many there are."""

        def total() -> int:
            return int(running.status()["tokens"]["generated_total"])

        before = total()
        return wait_for(lambda: (now := total()) >= before + more and now, 60, "it streams")

    async with aiohttp.ClientSession() as session:
        fields = {"max_tokens": 600, "ignore_eos": True, "temperature": 0.0}
        reading = asyncio.create_task(stream(session, running.url, PROMPT, **fields))
        await asyncio.to_thread(generates, 5)
        pid = running.worker()["pid"]
        code, said = await command(running, name, *arguments)
        assert code == 0, said
        await asyncio.to_thread(generates, 5)
        status = running.status()
        assert not reading.done()
        reading.cancel()
    assert status["workers"][0]["pid"] != pid
    assert status["tokens"]["prompt_total"] > N_PROMPT
    assert status["requests"]["replayed_total"] == 1
    return int(status["tokens"]["recomputed_total"])


async def test_a_restart_carries_the_prompts_kv_over(tmp_path: Path, model_path: Path) -> None:
    arguments = ("--model-path", str(model_path), "--n-ctx", "1024")
    with service(tmp_path / "run", *arguments) as running:
        assert await recomputed(running, "restart") < N_PROMPT / 2
        log = (running.runtime.logs / "front.log").read_text()
    assert "kv_handed_over sequences=1/1" in log


async def test_a_swap_to_a_larger_context_takes_the_stream_over(
    tmp_path: Path, model_path: Path
) -> None:
    arguments = ("--model-path", str(model_path), "--n-ctx", "1024")
    with service(tmp_path / "run", *arguments) as running:
        swap = ("swap", str(model_path), "--n-ctx", "1536")
        assert await recomputed(running, *swap) < N_PROMPT / 2
        assert running.worker()["n_ctx"] == 1536
