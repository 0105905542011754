"""Upgrades of the front, again and again, under streams and a constant flow of new requests."""

import asyncio
import itertools
import signal
import time

import psutil

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


async def run(n: int) -> Report:
    """`n` upgrades that no client notices; the worker stays."""
    report = reporting(f"{n} upgrades, {N_STREAMS} streams of {N_TOKENS} tokens at once")
    wrong = report.wrong
    took: list[float] = []
    async with rig(environ=ENVIRON) as one:
        pid, load = worker(await one.figures())["pid"], Load(one)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(UNDISTURBED_S)  # a span of time that is measured, not waited for
        disturbed_from = time.monotonic()
        fronts = [one.service.front]
        for _ in range(n):
            started = time.monotonic()
            code, said = await command(one, "upgrade")
            took.append(time.monotonic() - started)
            if code != 0:
                wrong.append(f"upgrade ended with {code}: {said[-300:]}")
            figures = await one.figures()
            fronts.append(psutil.Process(figures["front"]["pid"]))
            if fronts[-1].pid == fronts[-2].pid:
                wrong.append("an upgrade left the front where it was")
            if worker(figures)["pid"] != pid:
                wrong.append("the worker is another one")
        load.over.set()
        await running
        for history in (*load.streams, *load.flow):
            wrong += [f"{history.name}: {item}" for item in check(history)]
        wrong += wrong_counters(await one.until_idle()) + _left(fronts)
    report.row("streams; new requests", f"{len(load.streams)}; {len(load.flow)}")
    report.row("the command, drain of the old front included", spread(took))
    for name, is_disturbed in (("before", False), ("meanwhile", True)):
        streams, flow = (
            [h for h in histories if (h.started_at >= disturbed_from) is is_disturbed]
            for histories in (load.streams, load.flow)
        )
        silences = [*map(longest_silence_s, streams)]
        report.row(f"longest silence of a stream, {name}", spread(silences))
        report.row(f"new request to its answer, {name}", spread([*map(first_text_s, flow)]))
    return report


def _left(fronts: list[psutil.Process]) -> list[str]:
    """Stop the last front. Returns the leftovers of it and of the fronts before it."""
    last = fronts[-1]
    children = last.children(recursive=True)
    last.send_signal(signal.SIGTERM)
    wait_for(lambda: not last.is_running(), 40, "the front has ended")
    return survivors([*fronts, *children])
