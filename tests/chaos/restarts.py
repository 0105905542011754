"""Many restarts of one place: the front must not hold more after them than before."""

import os
import signal
import time

from tests.chaos.footprint import Footprint, at_rest, growth
from tests.chaos.history import check
from tests.chaos.load import ask_fake, run_ask
from tests.chaos.report import Report, reporting, say
from tests.chaos.rig import Rig, rig, stop_and_look, wrong_counters

ENVIRON = {
    "GPUFC_BACKEND": "fake",
    "GPUFC_RESTART_LIMIT": "10000",
    "GPUFC_LOG_LEVEL": "warning",
}
WARM_UP = 60
"""Restarts before the first look: objects made once, and 50 crash records, are no growth."""
SPARE_DESCRIPTORS = 3
SPARE_BYTES = 2 << 20
"""By how much the front's memory may differ: an allocator does not give back to the byte."""
COUNTED = ("processes", "zombies", "sockets", "files")


async def run(n_restarts: int) -> Report:
    """After many restarts the front holds no more than before them."""
    report = reporting(f"{n_restarts} restarts, scripted engine")
    async with rig(environ=ENVIRON) as one:
        epoch = await _restart(one, WARM_UP, 0)
        await _has_spare(one)
        before, started = await at_rest(one.service), time.monotonic()
        report.row("before", before)
        for done in range(100, n_restarts + 1, 100):
            epoch = await _restart(one, 100, epoch)
            say(f"  after {done}: {Footprint(one.service)} {time.monotonic() - started:.0f} s")
        epoch = await _restart(one, n_restarts % 100, epoch)
        await _has_spare(one)
        after, grown = await growth(one.service, before, SPARE_DESCRIPTORS, COUNTED, SPARE_BYTES)
        report.row("after", f"{after}, epoch {epoch}")
        report.row("duration", f"{time.monotonic() - started:.0f} s")
        report.wrong += grown
        report.wrong += wrong_counters(await one.figures())
        if epoch < n_restarts + WARM_UP:
            report.wrong.append(f"only {epoch} epochs")
        report.wrong += stop_and_look(one.service)
    return report


async def _restart(one: Rig, times: int, epoch: int) -> int:
    """Kill the worker again and again, each time when it has served. The latest epoch."""
    for _ in range(times):
        row = await one.until_ready()
        epoch = row["epoch"]
        found = await run_ask(one.session, one.url, ask_fake(f"epoch {epoch}", 2), "restart")
        wrong = check(found)
        if wrong:
            raise AssertionError(f"epoch {epoch}: {wrong[0]}")
        os.kill(row["pid"], signal.SIGKILL)
        epoch = (await one.until_ready(after=epoch))["epoch"]
    return epoch


async def _has_spare(one: Rig) -> None:
    """Wait for a spare: it has a log, which the first one makes."""
    await one.until(lambda now: [row["state"] for row in now["spares"]] == ["warm"], "a spare")
