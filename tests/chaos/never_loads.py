"""A model that cannot be loaded: given up in time, refused at once, and nothing spins."""

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.load import ask_fake, run_ask
from tests.chaos.report import Report, reporting, spread
from tests.chaos.rig import Figures, Rig, is_ready, rig, worker

SCRIPTS = (
    "load_fault=segv",
    "load_fault=exit3",
    "load_fail=1",
    "load_fault=hang",
    "load_fault=freeze",
)
FAILED_WITHIN_S = 60.0
REFUSED_WITHIN_S = 0.010
N_REQUESTS = 200
IDLE_S = 5.0


async def run(scripts: tuple[str, ...] = SCRIPTS) -> Report:
    """Each model is given up in time, and requests are refused at once from then on."""
    report = reporting(f"models that never load: {len(scripts)} kinds")
    for script in scripts:
        await _run(script, report)
    return report


async def _run(script: str, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="nl", dir="/tmp") as folder:
        marker = Path(folder, "m")
        _touch(marker)
        async with rig(environ=_environ(script, marker)) as one:
            row, took = await _fail(one, marker)
            report.row(
                f"{script}: failed after", f"{took:.1f} s, epoch {row['epoch']}: {row['detail']}"
            )
            if took > FAILED_WITHIN_S:
                report.wrong.append(f"{script}: failed only after {took:.0f} s")
            times, statuses = await _refusals(one)
            report.row(f"{script}: answers {sorted(statuses)}", spread(times))
            if statuses != {503} or max(times) > REFUSED_WITHIN_S:
                longest_ms = max(times) * 1e3
                report.wrong.append(f"{script}: {statuses}, longest {longest_ms:.1f} ms")
            share = await _cpu_share(one)
            report.row(f"{script}: the idle front", f"{share:.2%} of a core over {IDLE_S:.0f} s")


def _environ(script: str, marker: Path) -> dict[str, str]:
    return {
        "GPUFC_BACKEND": "fake",
        "GPUFC_FAKE_SCRIPT": f"{script},fail_once_file={marker}",
        "GPUFC_LOG_LEVEL": "error",
    }


async def _fail(one: Rig, marker: Path) -> tuple[dict[str, Any], float]:
    """Kill the worker; from then on each load goes wrong. The row, and how long it took.

    A model that cannot be loaded when the service is started ends `start`; this is one that
    could be, and cannot any more. A request waits meanwhile, and must get its typed error.
    """
    _forget(marker)
    os.kill((await one.until_ready())["pid"], signal.SIGKILL)
    started = time.monotonic()
    await one.until(lambda now: not is_ready(now), "the death is noticed")
    waiting = asyncio.create_task(
        run_ask(one.session, one.url, ask_fake("waits", 5, streamed=False), "waits")
    )

    def failed(now: Figures) -> bool:
        _forget(marker)  # the script's fault comes once for each time that the file is missing
        return bool(worker(now)["state"] == "failed")

    found = await one.until(failed, "failed", 150.0)
    took = time.monotonic() - started
    history = await waiting
    if history.status != 503:
        raise AssertionError(f"the waiting request got {history.status} {history.body}")
    return worker(found), took


def _touch(path: Path) -> None:
    path.touch()


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _refusals(one: Rig) -> tuple[list[float], set[int]]:
    times, statuses = [], set()
    for number in range(N_REQUESTS):
        ask, started = ask_fake(f"refused {number}", 5), time.monotonic()
        async with one.session.post(f"{one.url}/v1/completions", json=ask.body) as response:
            await response.read()
        times.append(time.monotonic() - started)
        statuses.add(response.status)
    return times[1:], statuses  # the first one opens the connection


async def _cpu_share(one: Rig) -> float:
    """The share of a core that the idle front and its processes use."""
    processes = [one.service.front, *one.service.front.children(recursive=True)]
    before = sum(_cpu_s(process) for process in processes)
    started = time.monotonic()
    # the one wait that is a measurement: how much is used in a given time
    await asyncio.sleep(IDLE_S)
    return (sum(_cpu_s(process) for process in processes) - before) / (time.monotonic() - started)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
