"""One key's flood of requests, and what another key's time to first token becomes beside it."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from supervisor.access import store
from supervisor.access.keys import Key, KeyList, digest, new_text
from supervisor.dispatch.request import Scope
from tests.chaos.report import Report, percentile, reporting, spread
from tests.chaos.rig import Rig, occupancy, rig, stop_and_look

N_FLOOD = 1000
"""Requests of the flood that are there at once. A refused one comes again when it is told to."""
N_TOKENS = 64
"""Of each of the flood's answers."""
SLOTS = 10
SLOWEST = 2.0
SCRIPTED = {"GPUFC_BACKEND": "fake", "GPUFC_FAKE_SCRIPT": "step_ms=20,prefill_us=50"}
COMMON = {
    "GPUFC_LOG_LEVEL": "warning",
    "GPUFC_STANDBY": "none",
    "GPUFC_MAX_CONCURRENT_REQUESTS": str(SLOTS),
}
LONG_S = 600.0


async def run(n_probes: int, model: Path | None = None) -> Report:
    """Another key's first tokens come within twice the time that they take without the flood.

    The scripted engine computes ten sequences as fast as one, so that all else is the flood's. On a
    real one, the streams that fill the slots cost what they cost without a flood, too: there the
    flood is compared with as many streams and one free slot.
    """
    engine = "the scripted engine" if model is None else model.name
    report = reporting(
        f"crowding: {n_probes} requests of one key beside {N_FLOOD} of another, {N_TOKENS} tokens"
        f" each, {SLOTS} slots, {engine}"
    )
    arguments = () if model is None else ("--model-path", str(model), "--n-ctx", "512")
    environ = COMMON | (SCRIPTED if model is None else {})
    texts = {name: new_text() for name in ("flood", "honest")}
    with tempfile.TemporaryDirectory(prefix="ch") as folder:
        path = Path(folder) / "keys.json"
        listed = tuple(
            Key(name=name, sha256=digest(text), scopes=(Scope.GENERATE,), created=1)
            for name, text in texts.items()
        )
        store.change(path, lambda _: KeyList(listed))
        async with rig("--keys-file", str(path), *arguments, environ=environ) as one:
            alone = await _probes(one, texts["honest"], n_probes, "alone")
            async with _flood(one, texts["flood"], SLOTS - 1):
                shared = await _probes(one, texts["honest"], n_probes, "shared")
            await one.until_idle()
            async with _flood(one, texts["flood"], N_FLOOD) as counts:
                beside = await _probes(one, texts["honest"], n_probes, "beside")
            await one.until_idle()
            report.wrong += stop_and_look(one.service)
    report.row("first token, alone", spread(alone))
    report.row(f"first token, beside {SLOTS - 1} streams of the other key", spread(shared))
    report.row("first token, beside the flood", spread(beside))
    report.row("the flood's answers, and refusals", f"{counts['answers']}, {counts['refusals']}")
    over = {"alone": alone, f"beside {SLOTS - 1} streams": shared}
    ratios = [percentile(beside, 0.5) / percentile(times, 0.5) for times in over.values()]
    for name, ratio in zip(over, ratios, strict=True):
        report.row(f"median beside the flood, over the one {name}", f"{ratio:.2f}")
    ratio = ratios[0] if model is None else ratios[1]
    if ratio > SLOWEST:
        report.wrong.append(f"another key's first token takes {ratio:.1f} times as long")
    return report


@contextlib.asynccontextmanager
async def _flood(one: Rig, key: str, n_requests: int) -> AsyncIterator[dict[str, int]]:
    """So many requests at once, again and again until the end of the block."""
    counts = {"answers": 0, "refusals": 0}
    headers = {"Authorization": f"Bearer {key}"}

    async def again_and_again(http: aiohttp.ClientSession, number: int) -> None:
        body = {"prompt": f"flood {number}", "max_tokens": N_TOKENS, "ignore_eos": True}
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.post(f"{one.url}/v1/completions", json=body) as answer:
                    await answer.read()
                    counts["answers" if answer.status == 200 else "refusals"] += 1
                    await asyncio.sleep(float(answer.headers.get("Retry-After", 0)))

    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(LONG_S)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as http:
        tasks = [asyncio.create_task(again_and_again(http, n)) for n in range(n_requests)]
        n_running = min(SLOTS, n_requests)
        try:
            await one.until(lambda now: occupancy(now)[0] >= n_running, "the flood runs")
            yield counts
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _probes(one: Rig, key: str, n: int, name: str) -> list[float]:
    return [await _first_token_s(one, key, f"{name} {number}") for number in range(n)]


async def _first_token_s(one: Rig, key: str, prompt: str) -> float:
    body = {"prompt": prompt, "max_tokens": 4, "stream": True, "ignore_eos": True}
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
