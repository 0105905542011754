"""A real worker that is stopped: for ever, which is a hang, and for 5 s, which is none."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

from msgspec import field

from tests.chaos import lanes
from tests.chaos.cell import running
from tests.chaos.faults import PAUSE_S
from tests.chaos.history import check, longest_silence_s, text_times
from tests.chaos.load import ask_real, begin, pursue
from tests.chaos.readiness import Answers, readiness
from tests.chaos.records import Records
from tests.chaos.report import Report, over, reporting, spread
from tests.chaos.rig import Rig, generated, rig, stop_and_look, worker, wrong_counters

N_TOKENS = 128
PROMPT = "A short story about trains, part {}:"
NEXT_TOKEN_S, READYZ_S, SILENCE_S = 20.0, 12.0, 5.0


class Outcome(lanes.Tally):
    """Seconds from each stop on. For a pause only violations are kept."""

    token: list[float] = field(default_factory=list)
    readyz: list[float] = field(default_factory=list)
    silence: list[float] = field(default_factory=list)


class Part(lanes.Share, frozen=True):
    """`n` stops of each kind, on one service of this model."""

    model: Path


async def run(model: Path, n_each: int, seed: int, n_lanes: int) -> Report:
    """A stream outlives a worker that hangs, and no worker is killed for a pause."""
    own = lanes.apart(n_lanes)
    parts = [
        Part(share.lane, share.n, share.seed, model)
        for share in lanes.shares(n_each, seed, len(own))
    ]
    report = reporting(
        f"hangs: one real stream, stopped {n_each} times for ever and {n_each} times for "
        f"{PAUSE_S:.0f} s, {lanes.services(parts)}, seed {seed}"
    )
    found = await lanes.total(_serve, parts, own)
    report.wrong += found.wrong
    report.head(
        f"worker stopped for ever {n_each} times: the next token, at the latest after",
        f"{max(found.token):.1f} s" if found.token else "none came",
    )
    report.row("stopped for ever, next token", spread(found.token))
    report.row("stopped for ever, /readyz still 200", spread(found.readyz))
    report.row("longest silence of a stream", spread(found.silence))
    report.wrong += over("next token", found.token, NEXT_TOKEN_S)
    report.wrong += over("/readyz 200", found.readyz, READYZ_S)
    report.wrong += over("silence", found.silence, SILENCE_S)
    return report


async def _serve(part: Part) -> Outcome:
    dice, found = random.Random(part.seed), Outcome()
    environ = {"GPUFC_RESTART_LIMIT": "10000"}
    async with rig("--model-path", str(part.model), "--n-ctx", "1024", environ=environ) as one:
        async with readiness(one.url) as answers:
            for number in range(part.n):
                await _play(one, number, dice.randint(8, N_TOKENS // 2), found, None)
                await _play(one, number, dice.randint(8, N_TOKENS // 2), found, answers)
        found.wrong += wrong_counters(await one.until_idle()) + stop_and_look(one.service)
    return found


async def _play(
    one: Rig, number: int, position: int, found: Outcome, answers: Answers | None
) -> None:
    """One stop: for ever where `answers` are looked at, else for `PAUSE_S`."""
    row, records = await one.until_ready(), Records(one.service.runtime.path)
    start = generated(await one.figures())
    ask = ask_real(PROMPT.format(number), N_TOKENS, seed=number)
    history = begin(f"stream {number}", ask)
    async with running(pursue(one.session, one.url, ask, history)) as (task,):
        await one.until(lambda now: generated(now) - start >= position, "tokens")
        os.kill(row["pid"], signal.SIGSTOP)
        at = time.monotonic()
        if answers is None:
            await asyncio.sleep(PAUSE_S)  # the fault is a time
            os.kill(row["pid"], signal.SIGCONT)
        else:
            await one.until(lambda now: worker(now)["epoch"] > row["epoch"], "a later epoch")
            found.readyz.append(answers.good_after(at, time.monotonic()))
        again_at = time.monotonic()
        await task
    found.wrong += [f"{history.name}: {item}" for item in check(history)]
    found.silence.append(longest_silence_s(history))
    if answers is not None:
        found.token.append(next(when for when in text_times(history) if when > again_at) - at)
        found.wrong += [
            f"it was {r.reason}" for r in await records.at_least(1) if r.reason != "hung"
        ]
    elif worker(await one.figures())["pid"] != row["pid"]:
        found.wrong.append(f"killed for a pause of {PAUSE_S:.0f} s")
