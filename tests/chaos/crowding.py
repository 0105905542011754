"""One key's flood of requests, and what another key's time to first token becomes beside it."""

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from msgspec import Struct

from supervisor.access import store
from supervisor.access.keys import Key, KeyList, digest, new_text
from supervisor.dispatch.request import Scope
from tests.chaos.crowd import LONG_S, Crowd, Lengths, crowd, prompt
from tests.chaos.report import Report, percentile, reporting, spread
from tests.chaos.rig import Rig, generated, occupancy, rig, stop_and_look

N_FLOOD = 1000
"""Requests of the flood that are there at once. A refused one comes again when it is told to."""
N_TOKENS = 64
"""Of each of the flood's answers."""
N_HONEST = 4
"""Of each answer of the other key."""
SLOTS = 10
SLOWEST = 2.0
PAUSE_S = 1.0
"""Between an answer and the next request of the other key, as a person would let pass."""
SCRIPTED = {"GPUFC_BACKEND": "fake", "GPUFC_FAKE_SCRIPT": "step_ms=20,prefill_us=50"}
COMMON = {
    "GPUFC_LOG_LEVEL": "warning",
    "GPUFC_STANDBY": "none",
    "GPUFC_MAX_CONCURRENT_REQUESTS": str(SLOTS),
}


class _Setting(Struct, frozen=True):
    """The scripted engine has a token for each character, about six for a word."""

    engine: str
    lengths: Lengths
    arguments: tuple[str, ...]
    environ: dict[str, str]


async def run(n_probes: int, model: Path | None = None) -> Report:
    """Another key's first tokens come within twice the time that they take without the flood."""
    if model is None:
        one_of = _Setting("the scripted engine", (17, 50), (), COMMON | SCRIPTED)
    else:
        served = ("--model-path", str(model), "--n-ctx", "512")
        one_of = _Setting(model.name, (100, 300), served, COMMON)
    least, most = one_of.lengths
    report = reporting(
        f"crowding: {n_probes} requests of one key beside {N_FLOOD} of another, prompts of {least}"
        f" to {most} words, {N_TOKENS} tokens each, {SLOTS} slots, {one_of.engine}"
    )
    texts = {name: new_text() for name in ("flood", "honest")}
    with tempfile.TemporaryDirectory(prefix="ch") as folder:
        path = Path(folder) / "keys.json"
        listed = tuple(
            Key(name=name, sha256=digest(text), scopes=(Scope.GENERATE,), created=1)
            for name, text in texts.items()
        )
        store.change(path, lambda _: KeyList(listed))
        keys = ("--keys-file", str(path))
        async with rig(*keys, *one_of.arguments, environ=one_of.environ) as one:
            words, key = random.Random(1), texts["honest"]

            async def probes() -> list[float]:
                lengths = random.Random(2)  # equal each time; the words differ: nothing is cached
                sizes = [lengths.randint(*one_of.lengths) for _ in range(n_probes)]
                took = []
                for n in sizes:
                    took.append(await _first_token_s(one, key, prompt(words, (n, n))))
                    await asyncio.sleep(PAUSE_S)
                return took

            await probes()  # the costs of steps are learnt
            alone = await probes()
            async with _flood(one, texts["flood"], SLOTS - 1, one_of):
                shared = await probes()
            await one.until_idle()
            async with _flood(one, texts["flood"], N_FLOOD, one_of) as flood:
                began, before_s = time.monotonic(), _front_s(one)
                before = generated(await one.figures())
                beside = await probes()
                lasted_s, front_s = time.monotonic() - began, _front_s(one) - before_s
                made = generated(await one.figures()) - before - n_probes * N_HONEST
            await one.until_idle()
            report.wrong += stop_and_look(one.service)
    report.row("first token, alone", spread(alone))
    report.row(f"first token, beside {SLOTS - 1} streams of the other key", spread(shared))
    report.row("first token, beside the flood", spread(beside))
    counts = flood.counts
    report.row(
        "the flood's tokens a second meanwhile; its answers, and refusals",
        f"{made / lasted_s:.1f}; {counts['answers']:.0f}, {counts['refusals']:.0f}",
    )
    report.row("of a core meanwhile: the front", f"{front_s / lasted_s:.0%}")
    over = {"alone": alone, f"beside {SLOTS - 1} streams": shared}
    ratios = [percentile(beside, 0.5) / percentile(times, 0.5) for times in over.values()]
    for name, ratio in zip(over, ratios, strict=True):
        report.row(f"median beside the flood, over the one {name}", f"{ratio:.2f}")
    if ratios[0] > SLOWEST:
        report.wrong.append(f"another key's first token takes {ratios[0]:.1f} times as long")
    if made <= 0:
        report.wrong.append("the flood gets no token meanwhile")
    return report


@contextlib.asynccontextmanager
async def _flood(one: Rig, key: str, n_requests: int, setting: _Setting) -> AsyncIterator[Crowd]:
    """So many requests at once, again and again until the end of the block."""
    n_running = min(SLOTS, n_requests)
    with crowd(one.url, key, n_requests, setting.lengths, N_TOKENS) as found:
        await one.until(lambda now: occupancy(now)[0] >= n_running, "the flood runs")
        yield found


def _front_s(one: Rig) -> float:
    """Processor time of the front so far."""
    times = one.service.front.cpu_times()
    return float(times.user + times.system)


async def _first_token_s(one: Rig, key: str, text: str) -> float:
    body = {"prompt": text, "max_tokens": N_HONEST, "stream": True, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {key}"}
    started = time.monotonic()
    async with one.session.post(
        f"{one.url}/v1/completions", json=body, headers=headers,
        timeout=aiohttp.ClientTimeout(LONG_S),
    ) as response:  # fmt: skip
        response.raise_for_status()
        while not (await response.content.readline()).startswith(b"data: "):
            pass  # a comment: it waits
        took = time.monotonic() - started
        await response.read()
    return took
