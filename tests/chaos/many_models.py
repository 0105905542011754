"""Three models, memory for two, and workers that are killed: requests go to all three."""

import asyncio
import collections
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from msgspec import Struct, field, structs

from tests.chaos.history import check, text_times
from tests.chaos.load import Ask, ask_fake, begin, pursue
from tests.chaos.report import Report, reporting, spread
from tests.chaos.rig import Figures, Missed, Rig, occupancy, rig, send, stop_and_look

MODELS = ("alpha", "beta", "gamma")
MODEL_BYTES = 48 << 20
"""Of each model's file, and of what its worker holds."""
FITS = 2
PROCESS_BYTES = 40 << 20
"""Of a scripted worker besides, at most."""
N_CLIENTS = 9
KILLS_BETWEEN_S = (0.5, 3.0)
SHARES = {"alpha": 6, "beta": 2, "gamma": 1}
"""Requests for a popular model, and for two that must not starve behind it."""

CONFIG = """
memory_limit_bytes = {limit}
[model]
backend = "fake"
fake_script = "step_ms=2,load_s=0.2,hold_mb={hold}"
"""


class Tally(Struct):
    """Counts so far."""

    n_streams: collections.Counter[str] = field(default_factory=collections.Counter)
    first_text_s: dict[str, list[float]] = field(default_factory=dict)
    n_kills: int = 0
    wrong: list[str] = field(default_factory=list)
    most_loaded: int = 0


class Storm:
    """Clients that ask for all models without end, and one killer, for so many seconds."""

    def __init__(self, one: Rig, seconds: float, seed: int) -> None:
        self.tally = Tally()
        self._one = one
        self._ends_at = time.monotonic() + seconds
        self._dice = random.Random(seed)
        self._asks = random.Random(seed + 1)
        self._n_asked = 0

    async def run(self) -> Tally:
        async with asyncio.TaskGroup() as group:
            for _ in range(N_CLIENTS):
                group.create_task(self._client())
            group.create_task(self._killer())
        return self.tally

    @property
    def _is_over(self) -> bool:
        return time.monotonic() > self._ends_at

    async def _client(self) -> None:
        while not self._is_over:
            self._n_asked += 1
            (model,) = self._asks.choices(list(SHARES), list(SHARES.values()))
            name = f"{model} {self._n_asked}"
            ask = _for(model, ask_fake(f"{name} " + "word " * 5, self._asks.randint(20, 200)))
            history = begin(name, ask)
            await pursue(self._one.session, self._one.url, ask, history)
            self.tally.n_streams[model] += 1
            self.tally.wrong += [f"{name}: {item}" for item in check(history)]
            if times := text_times(history):
                waits = self.tally.first_text_s.setdefault(model, [])
                waits.append(times[0] - history.started_at)
            await asyncio.sleep(self._asks.uniform(0.0, 0.2))

    async def _killer(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self._dice.uniform(*KILLS_BETWEEN_S))
            rows = [row for row in (await self._one.figures())["workers"] if row["pid"]]
            self.tally.most_loaded = max(self.tally.most_loaded, len(rows))
            # three deaths in a row while it loads make a model fail, as they should
            ready = [row for row in rows if row["state"] == "ready"]
            if not ready:
                continue
            try:
                send(self._dice.choice(ready)["pid"], signal.SIGKILL)
            except Missed:
                continue
            self.tally.n_kills += 1


def _for(model: str, ask: Ask) -> Ask:
    return structs.replace(ask, fields={**ask.fields, "model": model})


async def run(seconds: int, seed: int) -> Report:
    """Every request of all three models is answered; loads are counted."""
    report = reporting(f"{len(MODELS)} models, memory for {FITS}, {seconds} s, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="mm", dir="/tmp") as folder:
        config = _configured(Path(folder))
        environ = {"GPUFC_RESTART_LIMIT": "10000", "GPUFC_LOG_LEVEL": "warning"}
        async with rig("--config", str(config), environ=environ) as one:
            started = time.monotonic()
            tally = await Storm(one, seconds, seed).run()
            figures = await one.until(lambda now: occupancy(now) == (0, 0), "idle")
            report.wrong += tally.wrong + _wrong(figures, tally)
            report.wrong += stop_and_look(one.service)
    n_streams = sum(tally.n_streams.values())
    report.head(
        f"streams of {len(MODELS)} models with memory for {FITS} that went wrong under"
        f" {tally.n_kills} kills",
        f"{len(tally.wrong)} of {n_streams:,}",
    )
    for model in MODELS:
        row = _row(figures, model)
        report.row(f"{model}: streams", tally.n_streams[model])
        report.row(f"{model}: loads", row["n_loads"])
        report.row(f"{model}: first text", spread(tally.first_text_s.get(model, [])))
    report.row("workers at once, at most", tally.most_loaded)
    report.row("replays", figures["requests"]["replayed_total"])
    report.row("duration", f"{time.monotonic() - started:.0f} s")
    return report


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


def _wrong(figures: Figures, tally: Tally) -> list[str]:
    requests = figures["requests"]
    names = ("lost_total", "failed_total", "rejected_total", "cancelled_total")
    found = [f"{name}={requests[name]}" for name in names if requests[name]]
    if tally.most_loaded > FITS:
        found.append(f"{tally.most_loaded} workers at once")
    found += [f"{model} had no stream" for model in MODELS if not tally.n_streams[model]]
    return found


def _row(figures: Figures, model: str) -> dict[str, Any]:
    row: dict[str, Any] = next(one for one in figures["models"] if one["name"] == model)
    return row
