"""The real model: many streams at once, and a worker that is killed at random moments."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

from msgspec import Struct, field

from tests.chaos import lanes
from tests.chaos.history import History, check, longest_silence_s, text_times, usages
from tests.chaos.load import ask_real, begin, pursue, run_ask
from tests.chaos.report import Report, reporting, say, spread
from tests.chaos.rig import Rig, generated, rig, stop_and_look, worker, wrong_counters

N_STREAMS = 16
N_TOKENS = 256
N_KILLS = 3
REPLAY_SHARE = 1.3
"""The last stream goes on once its tokens and those of all streams before it are computed, at the
rate of a prefill and this share of time over it."""
TOKENS_S = 300.0
"""On a machine with much else to do, tokens may take their time."""
TOPICS = (
    *("foxes", "trains", "the sea", "bread", "clocks", "winter", "bridges", "maps"),
    *("music", "gardens", "paper", "stars", "rivers", "letters", "glass", "horses"),
)


class Outcome(lanes.Tally):
    """The figures of all runs. Times in seconds, from the kill on. `rates` are those of a prefill,
    in tokens a second, one for each service."""

    n_streams: int = 0
    n_bad: int = 0
    n_kills: int = 0
    noticed: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    each: list[float] = field(default_factory=list)
    silences: list[float] = field(default_factory=list)
    bound_shares: list[float] = field(default_factory=list)
    """The last stream's time over the time that `REPLAY_SHARE` allows for it."""
    rates: list[float] = field(default_factory=list)


class Kill(Struct):
    """One kill: when it was, when a later epoch was seen, and when that was ready."""

    at: float
    noticed_at: float
    ready_at: float
    open: tuple[str, ...]


def prompts(n_streams: int = N_STREAMS) -> list[str]:
    """A prompt for each stream; no two are alike."""
    return [f"A short story about {TOPICS[n % len(TOPICS)]}, part {n}:" for n in range(n_streams)]


def settings(n_threads: int | None) -> dict[str, str]:
    """Of a service that is killed very often."""
    threads = {} if n_threads is None else {"GPUFC_N_THREADS": str(n_threads)}
    return {"GPUFC_RESTART_LIMIT": "10000"} | threads


class Part(lanes.Share, frozen=True):
    """`n` runs on one service of this model."""

    model: Path
    n_threads: int | None


async def run(
    model: Path, n_runs: int, seed: int, n_threads: int | None = None, n_lanes: int = 1
) -> Report:
    """Every stream is complete, although its worker is killed again and again."""
    own = lanes.apart(n_lanes)
    parts = [
        Part(share.lane, share.n, share.seed, model, n_threads)
        for share in lanes.shares(n_runs, seed, len(own))
    ]
    report = reporting(
        f"real model: {n_runs} runs of {N_STREAMS} streams × {N_TOKENS} tokens, {N_KILLS} kills a "
        f"run, {lanes.services(parts)}, seed {seed}, engine threads {n_threads or 'default'}"
    )
    _tell(report, await lanes.total(_play, parts, own))
    return report


async def _play(part: Part) -> Outcome:
    outcome, dice = Outcome(), random.Random(part.seed)
    environ = settings(part.n_threads)
    arguments = ("--model-path", str(part.model), "--n-ctx", "1024")
    concurrent = ("--max-concurrent-requests", str(N_STREAMS))
    async with rig(*arguments, *concurrent, environ=environ) as one:
        rate = await _prefill_rate(one)
        outcome.rates.append(rate)
        try:
            for number in range(part.n):
                started = time.monotonic()
                await one_run(one, dice, outcome, rate=rate)
                say(
                    f"  {part.lane}run {number + 1}: {time.monotonic() - started:.0f} s, "
                    f"{len(outcome.wrong)} violations; load {os.getloadavg()[0]:.1f}"
                )
        except BaseException:  # the figures of the runs before are not lost
            _tell(reporting(f"{part.lane}broken off"), outcome)
            raise
        outcome.wrong += wrong_counters(await one.until_idle()) + stop_and_look(one.service)
    return outcome


async def one_run(
    one: Rig,
    dice: random.Random,
    outcome: Outcome,
    *,
    n_streams: int = N_STREAMS,
    n_tokens: int = N_TOKENS,
    n_kills: int = N_KILLS,
    rate: float | None = None,
) -> None:
    """Streams together, kills at random numbers of tokens; adds to `outcome`. `rate` is that of a
    prefill, in tokens a second."""
    row = await one.until_ready()
    start = generated(await one.figures())
    whole = n_streams * n_tokens
    marks = sorted(dice.sample(range(whole // 20, whole - whole // 10), n_kills))
    histories, tasks = [], []
    for number, prompt in enumerate(prompts(n_streams)):
        sampling = {"seed": number, "temperature": 0.8, "repeat_penalty": 1.1}
        ask = ask_real(prompt, n_tokens, **sampling)
        history = begin(f"stream {number}", ask)
        histories.append(history)
        tasks.append(asyncio.create_task(pursue(one.session, one.url, ask, history)))
    kills = [await _kill_at(one, start + mark, histories) for mark in marks]
    await asyncio.gather(*tasks)
    for history in histories:
        found = check(history)
        outcome.n_bad += bool(found)
        outcome.wrong += [f"{history.name}: {item}" for item in found]
        outcome.silences.append(longest_silence_s(history))
    outcome.n_streams += n_streams
    outcome.n_kills += n_kills
    for kill in kills:
        _measure(kill, histories, outcome, rate)
    after = worker(await one.figures())["epoch"]
    if after != row["epoch"] + n_kills:
        outcome.wrong.append(f"epoch {row['epoch']} -> {after} by {n_kills} kills")


async def _kill_at(one: Rig, mark: int, histories: list[History]) -> Kill:
    row = await one.until_ready()
    await one.until(lambda now: generated(now) >= mark, "tokens", TOKENS_S)
    os.kill(row["pid"], signal.SIGKILL)
    at = time.monotonic()
    still = tuple(history.name for history in histories if history.open)
    await one.until(lambda now: worker(now)["epoch"] > row["epoch"], "a later epoch")
    noticed_at = time.monotonic()
    await one.until_ready(after=row["epoch"])
    return Kill(at, noticed_at, time.monotonic(), still)


async def _prefill_rate(one: Rig) -> float:
    """Tokens a second of a prompt alone, the better of two."""
    rates = []
    for number in range(2):
        ask = ask_real(f"{number} " + "the long and winding road " * 100, 1, cache_prompt=False)
        history = await run_ask(one.session, one.url, ask, "prefill")
        n_tokens = int(usages(history)[0]["prompt_tokens"])
        rates.append(n_tokens / (text_times(history)[0] - history.started_at))
    return max(rates)


def _measure(kill: Kill, histories: list[History], outcome: Outcome, rate: float | None) -> None:
    """Until each stream's next text. What came before the death was noticed is not new."""
    outcome.noticed.append(kill.noticed_at - kill.at)
    outcome.ready.append(kill.ready_at - kill.at)
    nexts, n_tokens = [], 0
    for history in histories:
        if history.name not in kill.open:
            continue
        times = text_times(history)
        later = [at for at in times if at > kill.noticed_at]
        nexts += [later[0] - kill.at] if later else []
        n_tokens += usages(history)[0]["prompt_tokens"] + len(times) - len(later)
    if not nexts:
        return
    outcome.first.append(min(nexts))
    outcome.last.append(max(nexts))
    outcome.each += nexts
    if rate is not None:
        allowed = outcome.ready[-1] + REPLAY_SHARE * n_tokens / rate
        outcome.bound_shares.append(max(nexts) / allowed)


def _tell(report: Report, outcome: Outcome) -> None:
    report.head(
        f"{N_STREAMS} real streams at once, {N_KILLS} kills a run: streams complete",
        f"{outcome.n_streams - outcome.n_bad} of {outcome.n_streams}",
    )
    report.row("kills", outcome.n_kills)
    for name in ("noticed", "ready", "first", "last", "each"):
        report.row(f"from kill to {name}", spread(getattr(outcome, name)))
    report.row("last, of the time that its replay allows", spread(outcome.bound_shares, "×"))
    report.row("longest silence of a stream", spread(outcome.silences))
    report.row("prefill", ", ".join(f"{rate:.0f} tokens/s" for rate in outcome.rates))
    report.wrong += outcome.wrong
