"""Prompts that fill the context, on one thread: slow is not hung."""

import time
from pathlib import Path

from tests.chaos.history import check
from tests.chaos.load import ask_real, run_ask
from tests.chaos.report import Report, conditions, reporting, say, spread
from tests.chaos.rig import Rig, rig, stop_and_look, worker, wrong_counters

N_CTX = 4096
N_TOKENS = 8
SPARE = 32
"""Tokens of the context that are left free beside the answer."""
WORDS = ("lantern ", "harbour ", "willow ", "granite ", "meadow ", "copper ", "thunder ")


async def run(model: Path, n_prefills: int) -> Report:
    """One process answers all of them: none is taken for a hang."""
    report = reporting(f"prefills: {n_prefills} prompts of {N_CTX} tokens, one thread")
    environ = {"GPUFC_N_THREADS": "1", "GPUFC_N_CTX": str(N_CTX), "GPUFC_RESTART_LIMIT": "10000"}
    took: list[float] = []
    async with rig("--model-path", str(model), environ=environ) as one:
        before = await one.until_ready()
        for number in range(n_prefills):
            prompt = await _filling(one, number)
            ask = ask_real(prompt, N_TOKENS, cache_prompt=False)
            started = time.monotonic()
            history = await run_ask(one.session, one.url, ask, f"prefill {number}")
            took.append(time.monotonic() - started)
            report.wrong += [f"{history.name}: {item}" for item in check(history)]
            say(f"  prefill {number + 1}: {took[-1]:.1f} s; {conditions()}")
        after = worker(await one.figures())
        if (after["pid"], after["epoch"]) != (before["pid"], before["epoch"]):
            report.wrong.append(f"the worker was replaced: {after['last_exit']}")
        report.wrong += wrong_counters(await one.until_idle()) + stop_and_look(one.service)
    report.row("a prefill", spread(took))
    return report


async def _filling(one: Rig, number: int) -> str:
    """A prompt that leaves room for the answer and little else. No two begin alike."""
    word = WORDS[number % len(WORDS)]
    start = f"{number} {word}"
    n_start, n_more = [await _count(one, text) for text in (start, start + word * 64)]
    n_words = int((N_CTX - N_TOKENS - SPARE - n_start) / ((n_more - n_start) / 64))
    return start + word * n_words


async def _count(one: Rig, text: str) -> int:
    async with one.session.post(f"{one.url}/tokenize", json={"content": text}) as response:
        return len((await response.json())["tokens"])
