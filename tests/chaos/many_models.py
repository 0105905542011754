"""Three models, memory for two, and workers that are killed: requests go to all three.

The scripted engine, or real models: the demo model, one more file, and a tiny one with random
weights. The limit of memory for real ones is what two of them take here, measured beforehand. The
same real models, clients and killer against llama-server's router.
"""

import asyncio
import collections
import random
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import psutil
from msgspec import Struct, field, structs

from tests.chaos import peer
from tests.chaos.history import Wrong, check, text_times
from tests.chaos.load import Ask, ask_fake, ask_real, begin, clients, pursue
from tests.chaos.report import Report, reporting, spread
from tests.chaos.rig import Figures, Missed, Rig, occupancy, rig, send, stop_and_look
from tests.models.making import made

MODELS = ("alpha", "beta", "gamma")
REAL_MODELS = ("demo", "second", "random")
MODEL_BYTES = 48 << 20
"""Of each model's file, and of what its worker holds."""
FITS = 2
N_SLOTS = 4
LOOK_S = 0.1
PROCESS_BYTES = 40 << 20
"""Of a scripted worker besides, at most."""
ENVIRON = {"GPUFC_RESTART_LIMIT": "10000", "GPUFC_LOG_LEVEL": "warning"}

CONFIG = """
memory_limit_bytes = {limit}
[model]
backend = "fake"
fake_script = "step_ms=2,load_s=0.2,hold_mb={hold}"
"""
REAL_CONFIG = (
    f"max_concurrent_requests = {N_SLOTS}\n[model]\nn_ctx = 1024\nkv_cells = {1024 * N_SLOTS}\n"
)


class Load(Struct, frozen=True):
    """The clients and the killer. `shares` are of the requests, by model: one model is popular, and
    two must not starve behind it. `ask` makes a request from its name and its number of tokens."""

    ask: Callable[[str, int], Ask]
    shares: Mapping[str, int]
    n_clients: int
    n_tokens: tuple[int, int]
    kills_between_s: tuple[float, float]


def _ask_fake(name: str, n_tokens: int) -> Ask:
    return ask_fake(f"{name} " + "word " * 5, n_tokens)


def _ask_real(name: str, n_tokens: int) -> Ask:
    return ask_real(f"A story by {name}:", n_tokens, temperature=0.8, seed=n_tokens)


FAKE = Load(_ask_fake, dict(zip(MODELS, (6, 2, 1), strict=True)), 9, (20, 200), (0.5, 3.0))
REAL = Load(_ask_real, dict(zip(REAL_MODELS, (6, 2, 1), strict=True)), 6, (10, 60), (20.0, 40.0))


class Served(Protocol):
    """A server under the storm."""

    session: aiohttp.ClientSession
    url: str

    async def loaded(self) -> tuple[int, list[int]]:
        """How many processes hold models now, and the pids of those that may be killed."""
        ...


class OurService:
    """gpufc. Only ready workers are killed: three deaths in a row while it loads make a model fail,
    as they should."""

    def __init__(self, one: Rig) -> None:
        self.session, self.url, self._one = one.session, one.url, one

    async def loaded(self) -> tuple[int, list[int]]:
        rows = [row for row in (await self._one.figures())["workers"] if row["pid"]]
        return len(rows), [row["pid"] for row in rows if row["state"] == "ready"]


class Router:
    """llama-server's. `seen` are the pids of all its children so far."""

    def __init__(self, session: aiohttp.ClientSession, url: str, process: psutil.Process) -> None:
        self.session, self.url, self._process = session, url, process
        self.seen: set[int] = set()

    async def loaded(self) -> tuple[int, list[int]]:
        pids = [child.pid for child in peer.children(self._process)]
        self.seen.update(pids)
        return len(pids), pids

    async def watch(self) -> None:
        """Count its children until cancelled."""
        while True:
            await self.loaded()
            await asyncio.sleep(LOOK_S)


class Tally(Struct):
    """Counts so far."""

    n_streams: collections.Counter[str] = field(default_factory=collections.Counter)
    first_text_s: dict[str, list[float]] = field(default_factory=dict)
    n_kills: int = 0
    wrong: list[str] = field(default_factory=list)
    n_wrong: int = 0
    """The streams that went wrong."""
    most_loaded: int = 0


class Storm:
    """Clients that ask for all models without end, and one killer, for so many seconds."""

    def __init__(
        self, one: Served, load: Load, seconds: float, seed: int, but: Wrong | None = None
    ) -> None:
        """A finding of the kind `but` counts as none."""
        self.tally = Tally()
        self._one = one
        self._but = but
        self._load = load
        self._ends_at = time.monotonic() + seconds
        self._dice = random.Random(seed)
        self._asks = random.Random(seed + 1)
        self._n_asked = 0

    async def run(self) -> Tally:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._load.n_clients):
                group.create_task(self._client())
            group.create_task(self._killer())
        return self.tally

    @property
    def _is_over(self) -> bool:
        return time.monotonic() > self._ends_at

    async def _client(self) -> None:
        shares = self._load.shares
        while not self._is_over:
            self._n_asked += 1
            (model,) = self._asks.choices(list(shares), list(shares.values()))
            name = f"{model} {self._n_asked}"
            ask = _for(model, self._load.ask(name, self._asks.randint(*self._load.n_tokens)))
            history = begin(name, ask)
            await pursue(self._one.session, self._one.url, ask, history)
            self.tally.n_streams[model] += 1
            found = [item for item in check(history) if item.wrong is not self._but]
            self.tally.wrong += [f"{name}: {item}" for item in found]
            self.tally.n_wrong += bool(found)
            if times := text_times(history):
                waits = self.tally.first_text_s.setdefault(model, [])
                waits.append(times[0] - history.started_at)
            await asyncio.sleep(self._asks.uniform(0.0, 0.2))

    async def _killer(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self._dice.uniform(*self._load.kills_between_s))
            n_loaded, pids = await self._one.loaded()
            self.tally.most_loaded = max(self.tally.most_loaded, n_loaded)
            if not pids:
                continue
            try:
                send(self._dice.choice(pids), signal.SIGKILL)
            except Missed:
                continue
            self.tally.n_kills += 1


def _for(model: str, ask: Ask) -> Ask:
    return structs.replace(ask, fields={**ask.fields, "model": model})


async def run(seconds: int, seed: int) -> Report:
    """Every request of all three models is answered; loads are counted."""
    report = reporting(f"{len(MODELS)} models, memory for {FITS}, {seconds} s, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="mm", dir="/tmp") as folder:
        await _stormed(report, FAKE, _configured(Path(folder)), seconds, seed)
    return report


async def run_real(demo: Path, second: Path, seconds: int, seed: int) -> Report:
    """The same of real models."""
    files = dict(zip(REAL_MODELS, (demo, second, made("llama")), strict=True))
    names = ", ".join(path.name for path in files.values())
    report = reporting(f"{names} (random weights): memory for {FITS}, {seconds} s, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="mm", dir="/tmp") as folder:
        config = Path(folder) / "gpufc.toml"
        config.write_text(_real(files))
        *smaller, largest = sorted((await _measured(config)).values())
        limit = sum((*smaller[1:], largest)) + smaller[0] // 2
        report.row("limit of memory: two of them and half of the smallest", _mib(limit))
        config.write_text(f"memory_limit_bytes = {limit}\n{_real(files)}")
        await _stormed(report, REAL, config, seconds, seed)
    return report


async def run_peer(program: Path, demo: Path, second: Path, seconds: int, seed: int) -> Report:
    """The same of llama-server's router, which has room for two of the models. A measurement of
    another program: nothing that it does is a violation."""
    files = dict(zip(REAL_MODELS, (demo, second, made("llama")), strict=True))
    names = ", ".join(path.name for path in files.values())
    report = reporting(
        f"peer: llama-server, {names}: {FITS} loaded at most, {seconds} s, seed {seed}"
    )
    serving = peer.serving(program, files, N_SLOTS, most=FITS)
    async with serving as (url, process), clients() as session:
        one = Router(session, url, process)
        watching = asyncio.create_task(one.watch())
        # each of its chunks has a time of its own, which breaks no stream
        tally = await Storm(one, REAL, seconds, seed, but=Wrong.IDENTITY).run()
        watching.cancel()
    n_streams = sum(tally.n_streams.values())
    report.row("streams that went wrong", f"{tally.n_wrong} of {n_streams}")
    report.row("kills", tally.n_kills)
    kinds = collections.Counter(text.partition(": ")[2][:90] for text in tally.wrong)
    for kind, count in kinds.most_common(6):
        report.row(f"ended as: {kind}", count)
    for model in files:
        report.row(f"{model}: streams", tally.n_streams[model])
        report.row(f"{model}: first text", spread(tally.first_text_s.get(model, [])))
    report.row("processes with a model, one after the other", len(one.seen))
    return report


async def _stormed(report: Report, load: Load, config: Path, seconds: int, seed: int) -> None:
    models = tuple(load.shares)
    async with rig("--config", str(config), environ=ENVIRON) as one:
        started = time.monotonic()
        for model in models:  # what each one takes is known from its first load on
            await _answered(one, load, model)
        tally = await Storm(OurService(one), load, seconds, seed).run()
        figures = await one.until(lambda now: occupancy(now) == (0, 0), "idle")
        report.wrong += tally.wrong + _wrong(figures, tally, models)
        report.wrong += stop_and_look(one.service)
    n_streams = sum(tally.n_streams.values())
    report.head(
        f"streams of {len(models)} models with memory for {FITS} that went wrong under"
        f" {tally.n_kills} kills",
        f"{tally.n_wrong} of {n_streams:,}",
    )
    for model in models:
        row = _row(figures, model)
        report.row(f"{model}: streams", tally.n_streams[model])
        report.row(f"{model}: loads", row["n_loads"])
        report.row(f"{model}: first text", spread(tally.first_text_s.get(model, [])))
    report.row("workers at once, at most", tally.most_loaded)
    report.row("replays", figures["requests"]["replayed_total"])
    report.row("duration", f"{time.monotonic() - started:.0f} s")


async def _measured(config: Path) -> dict[str, int]:
    """What each model takes here when it is loaded. There is room for all."""
    async with rig("--config", str(config), environ=ENVIRON) as one:
        for model in REAL_MODELS:
            await _answered(one, REAL, model)
        rows = [_row(await one.figures(), model) for model in REAL_MODELS]
    return {row["name"]: row["host_bytes"] + row["mapped_bytes"] for row in rows}


async def _answered(one: Rig, load: Load, model: str) -> None:
    ask = _for(model, load.ask(model, 1))
    found = await pursue(one.session, one.url, ask, begin(model, ask))
    if wrong := check(found):
        raise AssertionError(f"{model}: {wrong[0]}")


def _real(files: Mapping[str, Path]) -> str:
    """The configuration of real models."""
    text = REAL_CONFIG
    for name, path in files.items():
        first = "preload = true\n" if name == REAL_MODELS[0] else ""
        text += f'[models.{name}]\nmodel_path = "{path}"\n{first}'
    return text


def _mib(n_bytes: int) -> str:
    return f"{n_bytes >> 20:,} MiB"


def _configured(folder: Path) -> Path:
    limit = FITS * (MODEL_BYTES + PROCESS_BYTES) + MODEL_BYTES // 2
    text = CONFIG.format(limit=limit, hold=MODEL_BYTES >> 20)
    for model in MODELS:
        path = folder / f"{model}.gguf"
        with path.open("wb") as file:
            file.truncate(MODEL_BYTES + PROCESS_BYTES)
        first = "preload = true\n" if model == MODELS[0] else ""
        text += f'[models.{model}]\nmodel_path = "{path}"\n{first}'
    config = folder / "gpufc.toml"
    config.write_text(text)
    return config


def _wrong(figures: Figures, tally: Tally, models: tuple[str, ...]) -> list[str]:
    requests = figures["requests"]
    names = ("lost_total", "failed_total", "rejected_total", "cancelled_total")
    found = [f"{name}={requests[name]}" for name in names if requests[name]]
    if tally.most_loaded > FITS:
        found.append(f"{tally.most_loaded} workers at once")
    found += [f"{model} had no stream" for model in models if not tally.n_streams[model]]
    return found


def _row(figures: Figures, model: str) -> dict[str, Any]:
    row: dict[str, Any] = next(one for one in figures["models"] if one["name"] == model)
    return row
