"""The real engine replaced under a stream: its computed KV goes with the stream."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.commands import command
from tests.integration.fake_service import stream
from tests.service import Gains, Service, service, wait_for

pytestmark = pytest.mark.model

PROMPT = "Foxes live in the wood and hens live in the yard. " * 20
N_PROMPT = 200
"""Tokens of the prompt, at least."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("replaced") / "run"
    arguments = ("--model-path", str(model_path), "--n-ctx", "8000")
    # two workers compute at once: threads that wait for each other would hold both back
    with service(folder, *arguments, environ={"GPUFC_N_THREADS": "1"}) as started:
        yield started


async def recomputed(running: Service, prompt: str, name: str, *arguments: str) -> int:
    """Replace the worker in the middle of a stream; how many tokens it computed once more."""
    await asyncio.to_thread(running.wait_idle)
    gains = Gains(running)

    def until_generated(n_tokens: int) -> None:
        wait_for(lambda: gains.of("tokens", "generated_total") >= (n_tokens,), 120, "it streams")

    async with aiohttp.ClientSession() as session:
        fields = {"max_tokens": 7000, "ignore_eos": True, "temperature": 0.0}
        reading = asyncio.create_task(stream(session, running.url, prompt, **fields))
        await asyncio.to_thread(until_generated, 5)
        pid = running.worker()["pid"]
        code, said = await command(running, name, *arguments)
        assert code == 0, said
        (so_far,) = gains.of("tokens", "generated_total")
        await asyncio.to_thread(until_generated, so_far + 5)
        found = gains.of("tokens", "prompt_total", "recomputed_total")
        assert not reading.done()
        reading.cancel()
    assert running.worker()["pid"] != pid
    assert gains.of("requests", "replayed_total") == (1,)
    assert found[0] > N_PROMPT
    return found[1]


async def test_a_restart_carries_the_prompts_kv_over(running: Service) -> None:
    assert await recomputed(running, PROMPT, "restart") < N_PROMPT / 2
    log = (running.runtime.logs / "front.log").read_text()
    assert "kv_handed_over sequences=1/1" in log


async def test_a_swap_to_a_larger_context_takes_the_stream_over(
    running: Service, model_path: Path
) -> None:
    swap = ("swap", str(model_path), "--n-ctx", "8192")
    assert await recomputed(running, f"Another tale. {PROMPT}", *swap) < N_PROMPT / 2
    assert running.worker()["n_ctx"] == 8192
