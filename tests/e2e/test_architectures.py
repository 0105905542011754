"""Tiny models of several architectures in a real service: killed, and swapped to and fro."""

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.repeatable import SAME_PASSES
from tests.integration.commands import command
from tests.integration.fake_service import complete, joined, stream
from tests.models.families import FAMILIES
from tests.models.making import made
from tests.service import Gains, service, wait_for

QUICK = {"lfm2"}
ARCHITECTURES = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in FAMILIES
]
PROMPT = "<|im_start|>user\nForests, rivers and the sea: which is the largest?<|im_end|>\n"
N_TOKENS = 2000
KILLED_AFTER = 20
EXACT = {"GPUFC_REPLAY": "exact", "GPUFC_N_THREADS": "1"}
FIELDS = {"temperature": 0.0, "ignore_eos": True}


@pytest.mark.parametrize("name", ARCHITECTURES)
async def test_an_exact_stream_is_the_same_over_a_kill(name: str, tmp_path: Path) -> None:
    arguments = ("--model-path", str(made(name)), "--n-ctx", "2560")
    with service(tmp_path / "run", *arguments, environ=EXACT) as running:
        async with aiohttp.ClientSession() as session:
            fields = {**FIELDS, "max_tokens": N_TOKENS}
            undisturbed = joined(await stream(session, running.url, PROMPT, **fields))
            gains, pid = Gains(running), running.worker()["pid"]
            reading = asyncio.create_task(stream(session, running.url, PROMPT, **fields))

            def has_streamed() -> bool:
                return gains.of("tokens", "generated_total") >= (KILLED_AFTER,)

            await asyncio.to_thread(wait_for, has_streamed, why="it streams")
            os.kill(pid, signal.SIGKILL)
            assert joined(await reading) == undisturbed
        assert gains.of("requests", "replayed_total") == (1,)


async def test_answers_are_the_same_after_swaps_to_other_architectures_and_back(
    tmp_path: Path,
) -> None:
    names = ("llama", "mamba", "gemma3", "lfm2", "llama", "gemma3")
    texts: dict[str, set[str]] = {}
    arguments = ("--model-path", str(made(names[0])))
    with service(tmp_path / "run", *arguments, environ=SAME_PASSES) as running:
        async with aiohttp.ClientSession() as session:
            for at, name in enumerate(names):
                if at:
                    code, said = await command(running, "swap", str(made(name)))
                    assert code == 0, said
                status, body, _ = await complete(session, running.url, PROMPT, **FIELDS)
                assert status == 200
                texts.setdefault(name, set()).add(body["choices"][0]["text"])
    assert [len(found) for found in texts.values()] == [1] * 4
    assert len(set().union(*texts.values())) == 4
