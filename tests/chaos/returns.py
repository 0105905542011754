"""Where the time goes from the death of a worker to the next token of one real stream."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

from msgspec import Struct, field

from tests.chaos.cell import running
from tests.chaos.history import History, check, longest_silence_s, text_times
from tests.chaos.load import ask_real, begin, pursue
from tests.chaos.readiness import Answers, readiness
from tests.chaos.real import settings
from tests.chaos.records import Records
from tests.chaos.report import Report, over, percentile, reporting, spread
from tests.chaos.rig import Figures, Rig, rig, stop_and_look, worker, wrong_counters

N_TOKENS = 128
PROMPT = "A short story about foxes, part {}:"
LIMITS = {
    "noticed": ((0.99, 0.050),),
    "ready": ((0.5, 1.5), (0.99, 3.0)),
    "token": ((0.99, 4.0),),
    "readyz": ((1.0, 1.0),),
    "silence": ((1.0, 5.0),),
}
"""What is promised: of which share of all values, at most how many seconds."""
SETTLED_S = 3.0
"""Between two kills, so that there is a spare again: this is no crash loop."""


class Returns(Struct):
    """Seconds from each kill on. `starting` is until hello, `loading` from there to ready,
    `resuming` from ready to the next token."""

    noticed: list[float] = field(default_factory=list)
    starting: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    resuming: list[float] = field(default_factory=list)
    token: list[float] = field(default_factory=list)
    readyz: list[float] = field(default_factory=list)
    silence: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


LABELS = {
    "noticed": "noticed (by the flight recorder's time)",
    "starting": "noticed → hello",
    "loading": "hello → ready",
    "ready": "ready",
    "resuming": "ready → next token",
    "token": "next token",
    "readyz": "/readyz still 200",
    "silence": "longest silence of a stream",
}


async def run(
    model: Path, n_kills: int, seed: int, standby: str, n_threads: int | None = None
) -> Report:
    """Every stream goes on, within `LIMITS`."""
    report = reporting(
        f"returns: one real stream, {n_kills} kills, seed {seed}, standby {standby}, engine "
        f"threads {n_threads or 'default'}"
    )
    dice, found = random.Random(seed), Returns()
    # an event for each token: guessed ones come several at once, and a stream may end too early
    environ = settings(n_threads) | {"GPUFC_STANDBY": standby, "GPUFC_SPECULATION": "none"}
    async with rig("--model-path", str(model), "--n-ctx", "1024", environ=environ) as one:
        async with readiness(one.url) as answers:
            for number in range(n_kills):
                await asyncio.sleep(SETTLED_S)
                await _one(one, number, dice.randint(8, N_TOKENS // 2), answers, found)
        report.wrong += found.wrong + wrong_counters(await one.until_idle())
        report.wrong += stop_and_look(one.service)
    report.head(
        f"real model killed {n_kills} times with SIGKILL: ready again; next token (medians)",
        f"{percentile(found.ready, 0.5):.2f} s; {percentile(found.token, 0.5):.2f} s",
    )
    for name, label in LABELS.items():
        values = getattr(found, name)
        report.row(label, spread(values))
        for share, limit_s in LIMITS.get(name, ()):
            report.wrong += over(label, values, limit_s, share)
    return report


async def _one(one: Rig, number: int, position: int, answers: Answers, found: Returns) -> None:
    row = await one.until_ready()
    records, killed = Records(one.service.runtime.path), asyncio.Event()
    ask = ask_real(PROMPT.format(number), N_TOKENS, seed=number)
    history = begin(f"stream {number}", ask)
    at, at_unix = 0.0, 0.0

    def kill(seen: History) -> None:
        nonlocal at, at_unix
        if not killed.is_set() and len(text_times(seen)) >= position:
            at, at_unix = time.monotonic(), time.time()
            os.kill(row["pid"], signal.SIGKILL)
            killed.set()

    async with running(pursue(one.session, one.url, ask, history, kill)) as (task,):
        await killed.wait()
        later = row["epoch"] + 1
        await one.until(lambda now: _is(now, later, "loading", "ready"), "hello")
        hello_at = time.monotonic()
        await one.until(lambda now: _is(now, later, "ready"), "ready")
        ready_at = time.monotonic()
        await task
    (record,) = await records.at_least(1)
    found.wrong += [f"{history.name}: {item}" for item in check(history)]
    next_at = next(when for when in text_times(history) if when > hello_at)
    noticed = record.at - at_unix
    found.noticed.append(noticed)
    found.starting.append(hello_at - at - noticed)
    found.loading.append(ready_at - hello_at)
    found.ready.append(ready_at - at)
    found.resuming.append(next_at - ready_at)
    found.token.append(next_at - at)
    found.readyz.append(answers.good_after(at, hello_at))
    found.silence.append(longest_silence_s(history))


def _is(figures: Figures, epoch: int, *states: str) -> bool:
    row = worker(figures)
    return row["epoch"] >= epoch and row["state"] in states
