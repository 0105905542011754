"""The front's memory without other machines, and with many workers on them. The scripted engine."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from tests.chaos.history import check
from tests.chaos.load import ask_fake, clients, run_ask
from tests.chaos.report import Report, reporting
from tests.machines import Cluster, cluster
from tests.service import Service, service, wait_for

N_HOSTS = 4
FEW_MIB, MORE_MIB = 80.0, 10.0
"""What a front without other machines may hold, and what it may hold more with them."""
SETTLE_S = 3.0
READY_S = 240.0


async def run(n_workers: int) -> Report:
    """Memory of a front with one worker of its own, and of one with so many of `N_HOSTS` hosts."""
    report = reporting(f"the front's memory with {n_workers} workers on {N_HOSTS} hosts")
    folder = Path(tempfile.mkdtemp(prefix="rm", dir="/tmp"))
    for name in ("alone", "hosts"):
        (folder / name).mkdir()
    try:
        alone_mib = await asyncio.to_thread(_alone, folder / "alone")
        report.row("front without other machines, one worker", f"{alone_mib:.1f} MiB")
        idle_mib, used_mib, wrong = await _with_hosts(folder / "hosts", n_workers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.row(f"front with {n_workers} workers of hosts, idle", f"{idle_mib:.1f} MiB")
    report.row("the same after a stream on each worker", f"{used_mib:.1f} MiB")
    report.wrong += wrong
    if alone_mib > FEW_MIB:
        report.wrong.append(f"{alone_mib:.1f} MiB without other machines")
    if used_mib > FEW_MIB + MORE_MIB:
        report.wrong.append(f"{used_mib:.1f} MiB with {n_workers} workers of hosts")
    return report


def _alone(folder: Path) -> float:
    config = folder / "config.toml"
    config.write_text('[models.fake]\nbackend = "fake"\n')
    with service(folder / "run", "--config", str(config)) as front:
        return _settled_mib(front)


async def _with_hosts(folder: Path, n_workers: int) -> tuple[float, float, list[str]]:
    each = -(-n_workers // N_HOSTS)
    making = cluster(folder, replicas=n_workers, more=f"workers_per_machine = {each}")
    one = await asyncio.to_thread(making.__enter__)
    try:
        await asyncio.to_thread(_joined, one, n_workers)
        idle_mib = await asyncio.to_thread(_settled_mib, one.front)
        async with clients() as session:
            asks = [ask_fake(f"stream {n}", 50) for n in range(4 * n_workers)]
            histories = await asyncio.gather(
                *(run_ask(session, one.front.url, ask, ask.prompt) for ask in asks)
            )
        wrong = [f"{history.name}: {item}" for history in histories for item in check(history)]
        return idle_mib, await asyncio.to_thread(_settled_mib, one.front), wrong
    finally:
        await asyncio.to_thread(making.__exit__, None, None, None)


def _joined(one: Cluster, n_workers: int) -> None:
    for number in range(N_HOSTS):
        one.join(f"h{number}")

    def all_ready() -> bool:
        return sum(1 for row in one.workers() if row["state"] == "ready") == n_workers

    wait_for(all_ready, READY_S, f"{n_workers} workers are ready")


def _settled_mib(front: Service) -> float:
    """Resident, once it is at rest."""
    process = front.front
    before = -1.0
    while (now := process.memory_info().rss / 2**20) != before:
        before = now
        process.cpu_percent(SETTLE_S)
    return now
