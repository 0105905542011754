"""Many loads and unloads, and many registered models: what the front holds, how late its loop is.

The scripted engine. Each model is a file of a folder, except the first one, which is preloaded.
"""

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import structs

from tests.chaos.bodies import Lags, probing
from tests.chaos.footprint import STILL_S, Footprint, at_rest, growth
from tests.chaos.history import check
from tests.chaos.load import ask_fake, run_ask
from tests.chaos.report import Report, percentile, reporting, say
from tests.chaos.rig import Rig, rig, stop_and_look, wrong_counters

ENVIRON = {"GPUFC_LOG_LEVEL": "warning"}
N_LANES = 4
"""Models that are loaded and unloaded at the same time."""
WARM_UP = 80
"""Cycles before the first look: objects made once are no growth."""
SPARE_DESCRIPTORS = 3
SPARE_BYTES = 2 << 20
"""By how much the front's memory may differ: an allocator does not give back to the byte."""
COUNTED = ("processes", "zombies", "sockets", "files", "threads")
FILE_BYTES = 1 << 20
N_WORKERS = 4
STREAMS_EACH = 4
N_TOKENS = 400
BUSY_S = 20.0
LAG_S = 0.020
"""The front may hold its loop for so long in 99 of 100 probes."""


async def run(n_cycles: int) -> Report:
    """After many cycles of load, answer and unload the front holds no more than before them."""
    report = reporting(f"{n_cycles} loads and unloads of {N_LANES} models, scripted engine")
    async with _front(N_LANES) as one:
        counter = itertools.count(1)
        await _cycles(one, WARM_UP, counter)
        before, started = await at_rest(one.service, STILL_S), time.monotonic()
        report.row("before", before)
        for first in range(0, n_cycles, 100):
            await _cycles(one, min(100, n_cycles - first), counter)
            say(f"  {Footprint(one.service)} {time.monotonic() - started:.0f} s")
        after, grown = await growth(one.service, before, SPARE_DESCRIPTORS, COUNTED, SPARE_BYTES)
        report.row("after", after)
        figures = await one.figures()
        n_loads = sum(row["n_loads"] for row in figures["models"])
        report.row("loads, those before the first look among them", n_loads)
        report.row("duration", f"{time.monotonic() - started:.0f} s")
        report.wrong += grown + wrong_counters(figures)
        if n_loads < n_cycles + WARM_UP - 1:  # the first model was loaded at the start
            report.wrong.append(f"only {n_loads} loads")
        report.wrong += stop_and_look(one.service)
    return report


async def run_registered(n_models: int) -> Report:
    """Memory and lag with many models registered, and with only those that are used."""
    report = reporting(f"{n_models} models registered, {N_WORKERS} workers run, scripted engine")
    held_s = {}
    for n in (N_WORKERS, n_models):
        async with _front(n) as one:
            idle = await _probed(one, asyncio.sleep(BUSY_S / 4))
            report.row(f"{n} models, one loaded", _spelled(one, idle))
            lags = await _probed(one, _busy(one, report))
            report.row(f"{n} models, {N_WORKERS * STREAMS_EACH} streams", _spelled(one, lags))
            held_s[n] = percentile([lag.held_s for lag in lags], 0.99)
            n_seen = len((await one.figures())["models"])
            if n_seen != n:
                report.wrong.append(f"{n_seen} models are registered")
            report.wrong += stop_and_look(one.service)
    if held_s[n_models] > max(LAG_S, 2 * held_s[N_WORKERS]):
        report.wrong.append(f"the loop is held for {held_s[n_models]:.3f} s (p99)")
    return report


@contextlib.asynccontextmanager
async def _front(n_models: int) -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="lo", dir="/tmp") as place:
        folder = Path(place) / "models"
        folder.mkdir()
        for number in range(n_models):
            path = folder / f"m{number}.gguf" if number else Path(place) / "m0.gguf"
            with path.open("wb") as file:
                file.truncate(FILE_BYTES)
        config = Path(place) / "gpufc.toml"
        config.write_text(
            f'models_dir = "{folder}"\nkept_kv_bytes = 0\n'
            '[model]\nbackend = "fake"\nfake_script = "step_ms=5"\n'
            f'[models.m0]\nmodel_path = "{Path(place) / "m0.gguf"}"\npreload = true\n'
        )
        async with rig("--config", str(config), environ=ENVIRON) as one:
            yield one


async def _cycles(one: Rig, times: int, counter: "itertools.count[int]") -> None:
    """So many cycles, spread over the lanes."""
    turns = iter(range(times))

    async def lane(number: int) -> None:
        for _ in turns:
            await _cycle(one, f"m{number}", next(counter))

    await asyncio.gather(*(lane(number) for number in range(N_LANES)))


async def _cycle(one: Rig, model: str, number: int) -> None:
    """The request loads the model."""
    found = await _asked(one, model, f"cycle {number}", 2)
    if found:
        raise AssertionError(f"cycle {number}: {found[0]}")
    await asyncio.to_thread(lambda: list(one.service.control.unload(model)))


async def _asked(one: Rig, model: str, name: str, n_tokens: int) -> list[str]:
    ask = ask_fake(name, n_tokens)
    ask = structs.replace(ask, fields={**ask.fields, "model": model})
    return [str(item) for item in check(await run_ask(one.session, one.url, ask, name))]


async def _busy(one: Rig, report: Report) -> None:
    """Streams of some models for a while. Their first requests load them."""
    ends_at = time.monotonic() + BUSY_S

    async def lane(number: int) -> None:
        while time.monotonic() < ends_at:
            name = f"lane {number} {time.monotonic()}"
            report.wrong += await _asked(one, f"m{number % N_WORKERS}", name, N_TOKENS)

    await asyncio.gather(*(lane(number) for number in range(N_WORKERS * STREAMS_EACH)))


async def _probed(one: Rig, work: Awaitable[None]) -> Lags:
    place = urlsplit(one.url)
    with probing((str(place.hostname), int(place.port or 0)), one.service.front.pid) as lags:
        await work
    return lags


def _spelled(one: Rig, lags: Lags) -> str:
    shares = {"p50": 0.5, "p99": 0.99, "longest": 1.0}
    held = [lag.held_s for lag in lags]
    walls = [lag.wall_s for lag in lags]
    told = (
        f"{name} {1000 * percentile(held, share):.1f} ({1000 * percentile(walls, share):.1f}) ms"
        for name, share in shares.items()
    )
    rss = one.service.front.memory_info().rss / 2**20
    return f"front {rss:.1f} MiB; loop held (lag) {', '.join(told)} (n={len(lags)})"
