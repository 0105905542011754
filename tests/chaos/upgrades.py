"""Upgrades of the front, again and again, under streams and a constant flow of new requests."""

import asyncio
import itertools
import signal
import time

import psutil
from msgspec import field

from tests.chaos import lanes
from tests.chaos.history import History, check, longest_silence_s
from tests.chaos.load import ask_fake, begin, pursue
from tests.chaos.replacements import command, first_text_s
from tests.chaos.report import Report, reporting, spread
from tests.chaos.rig import Rig, rig, survivors, worker, wrong_counters
from tests.service import wait_for

N_STREAMS = 50
N_TOKENS = 200
N_FLOW = 2
UNDISTURBED_S = 5.0
"""How long requests are timed before the first upgrade, to compare with."""
ENVIRON = {
    "GPUFC_BACKEND": "fake",
    "GPUFC_FAKE_SCRIPT": "step_ms=20",
    "GPUFC_LOG_LEVEL": "warning",
    "GPUFC_MAX_CONCURRENT_REQUESTS": str(N_STREAMS + 2 * N_FLOW),
    "GPUFC_KEEPALIVE_TIMEOUT_S": "1",
}


class Load:
    """Clients of two kinds, until `over`: long streams, and short requests, each of which opens a
    connection of its own."""

    def __init__(self, one: Rig) -> None:
        self.over = asyncio.Event()
        self.streams: list[History] = []
        self.flow: list[History] = []
        self._one = one
        self._numbers = itertools.count()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(N_STREAMS):
                group.create_task(self._client(self.streams, N_TOKENS))
            for _ in range(N_FLOW):
                group.create_task(self._client(self.flow, 1))

    async def _client(self, histories: list[History], n_tokens: int) -> None:
        while not self.over.is_set():
            number = next(self._numbers)
            ask = ask_fake(f"upgrade {number}", n_tokens)
            history = begin(f"request {number}", ask)
            histories.append(history)
            await pursue(self._one.session, self._one.url, ask, history)


class Tally(lanes.Tally):
    """The figures of clients before the first upgrade, and meanwhile. Times in seconds."""

    n_streams: int = 0
    n_flow: int = 0
    took: list[float] = field(default_factory=list)
    silences_before: list[float] = field(default_factory=list)
    silences_meanwhile: list[float] = field(default_factory=list)
    answers_before: list[float] = field(default_factory=list)
    answers_meanwhile: list[float] = field(default_factory=list)


async def run(n: int, n_lanes: int) -> Report:
    """`n` upgrades that no client notices; the worker stays."""
    parts = lanes.shares(n, 0, n_lanes)
    report = reporting(
        f"{n} upgrades, {lanes.services(parts)}, {N_STREAMS} streams of {N_TOKENS} tokens at once"
        " each"
    )
    tally = await lanes.total(_play, parts, lanes.together(n_lanes))
    report.wrong += tally.wrong
    report.row("streams; new requests", f"{tally.n_streams}; {tally.n_flow}")
    report.row("the command, drain of the old front included", spread(tally.took))
    report.row("longest silence of a stream, before", spread(tally.silences_before))
    report.row("new request to its answer, before", spread(tally.answers_before))
    report.row("longest silence of a stream, meanwhile", spread(tally.silences_meanwhile))
    report.row("new request to its answer, meanwhile", spread(tally.answers_meanwhile))
    return report


async def _play(share: lanes.Share) -> Tally:
    tally = Tally()
    async with rig(environ=ENVIRON) as one:
        load = Load(one)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(UNDISTURBED_S)  # a span of time that is measured, not waited for
        disturbed_from = time.monotonic()
        fronts = await _upgrade(one, share.n, tally)
        load.over.set()
        await running
        for history in (*load.streams, *load.flow):
            tally.wrong += [f"{history.name}: {item}" for item in check(history)]
        tally.wrong += wrong_counters(await one.until_idle()) + _left(fronts)
    tally.n_streams, tally.n_flow = len(load.streams), len(load.flow)
    for history in load.streams:
        is_before = history.started_at < disturbed_from
        silences = tally.silences_before if is_before else tally.silences_meanwhile
        silences.append(longest_silence_s(history))
    for history in load.flow:
        is_before = history.started_at < disturbed_from
        answers = tally.answers_before if is_before else tally.answers_meanwhile
        answers.append(first_text_s(history))
    return tally


async def _upgrade(one: Rig, n: int, tally: Tally) -> list[psutil.Process]:
    """`n` upgrades in turn. Returns the first front and all later ones."""
    fronts, pid = [one.service.front], worker(await one.figures())["pid"]
    for _ in range(n):
        started = time.monotonic()
        code, said = await command(one, "upgrade")
        tally.took.append(time.monotonic() - started)
        if code != 0:
            tally.wrong.append(f"upgrade ended with {code}: {said[-300:]}")
        figures = await one.figures()
        fronts.append(psutil.Process(figures["front"]["pid"]))
        if fronts[-1].pid == fronts[-2].pid:
            tally.wrong.append("an upgrade left the front where it was")
        if worker(figures)["pid"] != pid:
            tally.wrong.append("the worker is another one")
    return fronts


def _left(fronts: list[psutil.Process]) -> list[str]:
    """Stop the last front. Returns the leftovers of it and of the fronts before it."""
    last = fronts[-1]
    children = last.children(recursive=True)
    last.send_signal(signal.SIGTERM)
    wait_for(lambda: not last.is_running(), 40, "the front has ended")
    return survivors([*fronts, *children])
