"""Two workers of one model, one of them killed again and again: the other one goes on at once."""

import asyncio
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from tests.chaos.history import check
from tests.chaos.load import Ask, ask_fake, ask_real, begin, pursue
from tests.chaos.report import Report, reporting
from tests.chaos.rig import (
    Figures,
    Missed,
    Rig,
    occupancy,
    rig,
    send,
    stop_and_look,
    wrong_counters,
)

ENVIRON = {
    "GPUFC_REPLICAS": "2",
    "GPUFC_RESTART_LIMIT": "10000",
    "GPUFC_LOG_LEVEL": "warning",
}
FAKE = {"GPUFC_BACKEND": "fake", "GPUFC_FAKE_SCRIPT": "step_ms=5"}
N_CLIENTS = 8
"""As many as one worker has places, so that its streams find room on the other one."""
KILL_EVERY_S = 5.0
GAP_S = 0.3
LOAD_S = 120.0
"""A large model takes its time to be loaded again."""

MakeAsk = Callable[[str, int], Ask]
"""A request from its name and its number of tokens."""


class Load(Struct, frozen=True):
    """What the clients ask for: so many at once, answers of so many tokens at the most."""

    ask: MakeAsk
    n_clients: int = N_CLIENTS
    most_tokens: int = 300


class Tally(Struct):
    """Counts so far."""

    n_streams: int = 0
    n_kills: int = 0
    wrong: list[str] = field(default_factory=list)


class Storm:
    """Clients that ask without end, and one killer, for so many seconds."""

    def __init__(self, one: Rig, load: Load, seconds: float, seed: int) -> None:
        self.tally = Tally()
        self._one = one
        self._load = load
        self._ends_at = time.monotonic() + seconds
        self._dice = random.Random(seed)

    async def run(self) -> Tally:
        async with asyncio.TaskGroup() as group:
            for number in range(self._load.n_clients):
                group.create_task(self._client(number))
            group.create_task(self._killer())
        return self.tally

    @property
    def _is_over(self) -> bool:
        return time.monotonic() > self._ends_at

    async def _client(self, number: int) -> None:
        dice = random.Random(number)
        while not self._is_over:
            name = f"client {number} stream {self.tally.n_streams}"
            ask = self._load.ask(name, dice.randint(50, self._load.most_tokens))
            history = begin(name, ask)
            await pursue(self._one.session, self._one.url, ask, history)
            self.tally.n_streams += 1
            self.tally.wrong += [f"{name}: {item}" for item in check(history)]

    async def _killer(self) -> None:
        while not self._is_over:
            await asyncio.sleep(KILL_EVERY_S)
            found = await self._one.until(_both_are_ready, "two workers are ready", LOAD_S)
            try:
                send(self._dice.choice(found["workers"])["pid"], signal.SIGKILL)
            except Missed:
                continue
            self.tally.n_kills += 1


async def run(seconds: int, seed: int) -> Report:
    """The scripted engine: no stream breaks, and streams go on within `GAP_S`."""
    report = reporting(f"2 replicas, one killed every {KILL_EVERY_S:.0f} s for {seconds} s")
    await _storm(report, Load(_ask_fake), (), FAKE, seconds, seed)
    return report


async def run_real(
    model: Path, seconds: int, seed: int, n_clients: int, devices: str | None, standby: str
) -> Report:
    """The same of a real model. `devices` has a group for each replica: `CUDA0;CUDA1`. `standby` is
    the kind of spare that each has."""
    where = f"devices {devices}" if devices else "no devices of their own"
    report = reporting(
        f"{model.name}: 2 replicas, {where}, standby {standby}, {n_clients} clients, one killed"
        f" every {KILL_EVERY_S:.0f} s for {seconds} s"
    )
    environ = {"GPUFC_STANDBY": standby} | ({"GPUFC_DEVICES": devices} if devices else {})
    arguments = ("--model-path", str(model), "--n-ctx", "1024")
    await _storm(report, Load(_ask_real, n_clients), arguments, environ, seconds, seed)
    return report


def _ask_fake(name: str, n_tokens: int) -> Ask:
    return ask_fake(f"{name} " + "word " * 5, n_tokens)


def _ask_real(name: str, n_tokens: int) -> Ask:
    return ask_real(f"A story by {name}:", n_tokens, temperature=0.8, seed=n_tokens)


async def _storm(
    report: Report,
    load: Load,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    seconds: int,
    seed: int,
) -> None:
    slots = ("--max-concurrent-requests", str(load.n_clients))
    async with rig(*slots, *arguments, environ=ENVIRON | dict(environ)) as one:
        await one.until(_both_are_ready, "two workers are ready", LOAD_S)
        tally = await Storm(one, load, seconds, seed).run()
        figures = await one.until(lambda now: occupancy(now) == (0, 0), "idle")
        report.wrong += tally.wrong + wrong_counters(figures)
        report.wrong += stop_and_look(one.service)
    gap = figures["latency"]["resume_gap_seconds"]
    report.head(
        f"streams that went wrong under {tally.n_kills} kills of one of two workers",
        f"{len(tally.wrong)} of {tally.n_streams:,}",
    )
    report.row("from the last token before a kill to the next one", _spread(gap))
    report.row("replays", figures["requests"]["replayed_total"])
    if gap["p50"] is None or gap["p50"] > GAP_S:
        report.wrong.append(f"half of the streams went on after {gap['p50']} s")


def _both_are_ready(figures: Figures) -> bool:
    return sum(row["state"] == "ready" for row in figures["workers"]) == 2


def _spread(gap: dict[str, float | None]) -> str:
    if gap["p50"] is None or gap["p99"] is None:
        return "none"
    return f"p50 {gap['p50']:.3f} s, p99 {gap['p99']:.3f} s"
