"""Peers without a key at the port for hosts: what they cost the front's clients, and what they get.

A real front with a host and a worker of the fake engine. Short requests are timed without and with
`outsider`, which runs as a process of its own on the same cores.
"""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from tests.chaos.history import check
from tests.chaos.load import ask_fake, clients, run_ask
from tests.chaos.report import Report, percentile, reporting, spread
from tests.machines import Cluster, Host, cluster
from tests.service import wait_for

N_TOKENS = 10
N_AT_ONCE = 4
MOST_TIMES = 2.0
"""The p99 of the front's clients under attack may be so many times that without."""


async def run(n_requests: int, seed: int) -> Report:
    """No stream breaks or changes, no stranger is answered, no host is lost."""
    report = reporting(f"outsiders at the port for hosts, {n_requests} short requests each time")
    folder = Path(tempfile.mkdtemp(prefix="co", dir="/tmp"))
    making = cluster(folder, "a")
    try:
        one = await asyncio.to_thread(making.__enter__)
        try:
            await _run(one, report, n_requests, seed)
        finally:
            await asyncio.to_thread(making.__exit__, None, None, None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


async def _run(one: Cluster, report: Report, n_requests: int, seed: int) -> None:
    losses = one.rows()["a"]["n_losses"]
    async with clients() as session:
        await _timed(one, session, report, "warm-up", n_requests // 4)
        quiet = await _timed(one, session, report, "quiet", n_requests)
        thief = await asyncio.to_thread(_replayed, one)
        with attacked(one, seed) as told:
            loud = await _timed(one, session, report, "attacked", n_requests)
        again = await _timed(one, session, report, "quiet again", n_requests)
    report.row("requests without an attack", spread(quiet))
    report.row("requests under attack", spread(loud))
    report.row("requests after it", spread(again))
    times = percentile(loud, 0.99) / max(percentile(quiet, 0.99), percentile(again, 0.99))
    report.head("p99 under attack, as a multiple of that without", f"{times:.2f}")
    for name, count in told.items():
        report.row(name, count)
    if times > MOST_TIMES:
        report.wrong.append(f"p99 is {times:.2f} times that without an attack")
    if told.get("strangers that were answered"):
        report.wrong.append("a stranger was answered")
    if one.rows()["a"]["n_losses"] != losses:
        report.wrong.append("the host was lost")
    if sorted(one.rows()) != ["a"]:
        report.wrong.append(f"machines have joined: {sorted(one.rows())}")
    if thief.process.poll() is not None:
        report.wrong.append("the host with the replayed invitation has ended")
    report.row("a host with a used invitation", "is turned away, and no machine has joined")


def _replayed(one: Cluster) -> Host:
    """Another host with the invitation that the first one has used."""
    thief = one.join("thief", one.folder / "a.join")
    wait_for(lambda: "the join file has been used" in thief.output, why="it is turned away")
    return thief


@contextlib.contextmanager
def attacked(one: Cluster, seed: int) -> Iterator[dict[str, float]]:
    """An outsider meanwhile. Its counts are there afterwards."""
    told: dict[str, float] = {}
    port = one.address.rpartition(":")[2]
    front_key = json.loads((one.folder / "a.join").read_text())["front_key"]
    command = [sys.executable, "-m", "tests.chaos.outsider", port, front_key, str(seed)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "begun\n"
        try:
            yield told
        finally:
            process.stdin.close()
            told.update(json.loads(process.stdout.read() or "{}"))


async def _timed(
    one: Cluster, session: aiohttp.ClientSession, report: Report, name: str, n_requests: int
) -> list[float]:
    """The times of short requests in seconds, from the first byte sent to the last received."""
    took: list[float] = []
    numbers, url = iter(range(n_requests)), one.front.url

    async def lane() -> None:
        for number in numbers:
            began = time.monotonic()
            history = await run_ask(
                session, url, ask_fake(f"{name} {number}", N_TOKENS), str(number)
            )
            took.append(time.monotonic() - began)
            report.wrong += [f"{name} {number}: {item}" for item in check(history)]

    await asyncio.gather(*(lane() for _ in range(N_AT_ONCE)))
    return took
