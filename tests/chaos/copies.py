"""What the copy of a model to a machine costs streams that the same machine computes meanwhile.

One machine in namespaces, which does not see the front's files. Its first worker generates; a
request for a second model has this one copied over the same connection.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from tests.chaos.history import History, check, text_times
from tests.chaos.load import ask_fake, begin, clients, pursue
from tests.chaos.report import Report, percentile, reporting
from tests.machines import Cluster, cluster
from tests.namespaces import Space, lacking, space

N_STREAMS = 8
N_TOKENS = 1000
QUIET_S = 10.0
MIB = 1 << 20


async def run(n_mib: int) -> Report:
    """No stream breaks or changes, and the copy arrives."""
    report = reporting(f"a copy of {n_mib} MiB to a machine whose worker has {N_STREAMS} streams")
    if (reason := lacking()) is not None:
        report.row("not run", reason)
        report.wrong.append(reason)
        return report
    folder = Path(tempfile.mkdtemp(prefix="cc", dir="/tmp"))
    making = _one_machine(folder, n_mib)
    try:
        running, one = await asyncio.to_thread(making.__enter__)
        try:
            await _run(running, one, report, n_mib)
        finally:
            await asyncio.to_thread(making.__exit__, None, None, None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


@contextlib.contextmanager
def _one_machine(folder: Path, n_mib: int) -> Iterator[tuple[Cluster, Space]]:
    models = folder / "models"
    models.mkdir()
    with (models / "large.gguf").open("wb") as file:
        for _ in range(n_mib):
            file.write(os.urandom(MIB))
    second = (
        '[models.large]\nspread = "machines"\nbackend = "fake"\npreload = false\n'
        f'model_path = "{models / "large.gguf"}"\n'
    )
    settings = "workers_per_machine = 2"
    with (
        cluster(
            folder,
            replicas=1,
            more=settings,
            of_model=f"preload = true\n{second}",
            listen="0.0.0.0",
        ) as running,
        space(running, "a", hidden=[models]) as one,
    ):
        running.wait_ready("a")
        yield running, one


async def _run(running: Cluster, one: Space, report: Report, n_mib: int) -> None:
    url = running.front.url
    async with clients() as session:
        quiet = await _streams(session, url, "quiet", asyncio.create_task(asyncio.sleep(QUIET_S)))
        began = time.monotonic()
        asked = asyncio.create_task(_asked(session, url))
        copying = asyncio.create_task(_copied(one))
        loud = await _streams(session, url, "copying", copying)
        took_s = time.monotonic() - began
        await asked
    copied = [path.stat().st_size for path in one.models_dir("a").glob("copies/*/large.gguf")]
    if copied != [n_mib * MIB]:
        report.wrong.append(f"the copies have {copied} bytes")
    report.row("the checksum at the front, the copy and its check", f"{took_s:.1f} s")
    for name, histories in (("without", quiet), ("beside", loud)):
        report.wrong += [f"{one.name}: {item}" for one in histories for item in check(one)]
        gaps = [gap for history in histories for gap in _gaps(history)]
        report.row(f"gaps between tokens {name} the copy", _in_ms(gaps))


async def _asked(session: aiohttp.ClientSession, url: str) -> None:
    body = {"model": "large", "prompt": "x", "max_tokens": 1}
    async with session.post(f"{url}/v1/completions", json=body) as response:
        await response.read()


async def _copied(one: Space) -> None:
    while not list(one.models_dir("a").glob("copies/*/large.gguf")):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def _streams(
    session: aiohttp.ClientSession, url: str, name: str, until: "asyncio.Task[None]"
) -> list[History]:
    """Streams one after the other in each lane, until a task has ended."""
    histories: list[History] = []

    async def lane(number: int) -> None:
        for turn in itertools.count():
            if until.done():
                return
            ask = ask_fake(f"{name} {number} {turn}", N_TOKENS)
            histories.append(await pursue(session, url, ask, begin(f"{name} {number}", ask)))

    await asyncio.gather(*(lane(number) for number in range(N_STREAMS)))
    return histories


def _gaps(history: History) -> list[float]:
    return [b - a for a, b in itertools.pairwise(text_times(history))]


def _in_ms(gaps: list[float]) -> str:
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "longest": 1.0}
    found = ", ".join(f"{name} {1000 * percentile(gaps, s):.0f} ms" for name, s in shares.items())
    return f"{found} (n={len(gaps)})"
