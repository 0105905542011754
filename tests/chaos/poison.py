"""Requests that kill the engine, among many that do not."""

import asyncio
import random
import time

from msgspec import Struct, field

from tests.chaos.history import History, check, check_ended
from tests.chaos.load import Ask, ask_fake, run_ask
from tests.chaos.report import Report, reporting, spread
from tests.chaos.rig import Rig, rig, stop_and_look

ENVIRON = {
    "GPUFC_BACKEND": "fake",
    "GPUFC_FAKE_SCRIPT": "step_ms=4",
    "GPUFC_MAX_CONCURRENT_REQUESTS": "32",
    "GPUFC_LOG_LEVEL": "warning",
}
"""With the default `restart_limit`: a conviction explains its deaths, however many there are."""
N_REQUESTS = 32
N_TOKENS = 60
FAULTS = ("segv", "abort", "decode_error", "nan", "exit")
MOST_DEATHS = 3
SUSPECT = "engine_crash_suspect"
SEVERAL = 4
"""So many at once in the last round: each costs two more deaths at most."""


class Tally(Struct):
    """What all rounds brought."""

    deaths: list[int] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    n_fine: int = 0
    n_convicted: int = 0
    wrong: list[str] = field(default_factory=list)


async def run(n_rounds: int, seed: int) -> Report:
    """Each request that kills the engine is found, and every other one gets its answer."""
    report = reporting(
        f"poison: {n_rounds} rounds of 1 among {N_REQUESTS}, then {SEVERAL} at once, seed {seed}"
    )
    dice, tally = random.Random(seed), Tally()
    async with rig(environ=ENVIRON) as one:
        started = time.monotonic()
        for number in range(n_rounds):
            await _round(one, dice, tally, number, 1)
        await _round(one, dice, tally, n_rounds, SEVERAL)
        tally.wrong += stop_and_look(one.service)
    n_poison = n_rounds + SEVERAL
    report.head(
        f"requests that kill the engine, convicted; the others of {N_REQUESTS} each, answered",
        f"{tally.n_convicted} of {n_poison}; "
        f"{tally.n_fine} of {(n_rounds + 1) * N_REQUESTS - n_poison}",
    )
    report.row("deaths in each round", ", ".join(map(str, tally.deaths)))
    report.row("until the last other request had its answer", spread(tally.took))
    report.row("duration", f"{time.monotonic() - started:.0f} s")
    report.wrong += tally.wrong
    return report


async def _round(one: Rig, dice: random.Random, tally: Tally, number: int, n_poison: int) -> None:
    before = (await one.until_ready())["restarts"]
    asks = [ask_fake(f"good {number} {n}", N_TOKENS) for n in range(N_REQUESTS - n_poison)]
    poisons = [_poison(dice, f"{number} {n}") for n in range(n_poison)]
    started = time.monotonic()
    histories = await asyncio.gather(
        *(
            run_ask(one.session, one.url, ask, f"{number}.{n}")
            for n, ask in enumerate(poisons + asks)
        )
    )
    convicts, others = histories[:n_poison], histories[n_poison:]
    tally.took.append(max(history.ended_at or 0.0 for history in others) - started)
    _judge(tally, convicts, others)
    again = await run_ask(one.session, one.url, poisons[0], f"{number} again")
    if (again.status, _code(again)) != (500, SUSPECT):
        tally.wrong.append(f"an equal request was answered with {again.status} {again.body}")
    deaths = (await one.until_ready())["restarts"] - before
    tally.deaths.append(deaths)
    if deaths > MOST_DEATHS + 2 * (n_poison - 1):
        tally.wrong.append(f"round {number}: {deaths} deaths")


def _judge(tally: Tally, convicts: list[History], others: list[History]) -> None:
    for history in convicts:
        found = check_ended(history, {SUSPECT})
        tally.n_convicted += not found
        tally.wrong += [f"poison {history.name}: {item}" for item in found]
    for history in others:
        bad = check(history, [other for other in others if other is not history])
        tally.n_fine += not bad
        tally.wrong += [f"{history.name}: {item}" for item in bad]


def _poison(dice: random.Random, name: str) -> Ask:
    fault, position = dice.choice(FAULTS), dice.randint(-1, N_TOKENS // 2)
    return ask_fake(f"[[{fault}@{position}]] poison {name}", N_TOKENS)


def _code(history: History) -> str | None:
    return history.body["error"]["code"] if isinstance(history.body, dict) else None
