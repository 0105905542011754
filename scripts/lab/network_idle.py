"""Compare idle fronts: without a network, logged in, and logged in with all intervals shortened.

    python -m scripts.lab.network_idle [SECONDS] [ROUNDS]

All run at the same time, so that what disturbs one disturbs the others. Processor time is the
scheduler's, in nanoseconds, summed over all threads of a front. Two fronts differ by more than a
network costs, so the third one sends its heartbeats and its models `TIMES` as often: what it takes
more than the first, divided by `TIMES`, is the cost of a network.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from statistics import median
from unittest import mock

from supervisor.fabric import session
from tests import service as services
from tests.fakes.control_server import CLIENT_ID, control_server
from tests.integration.fake_service import FAKE
from tests.integration.test_network import network
from tests.service import Service, service

SETTLED_S = 20.0
TIMES = 100
HURRIED = f"""
from supervisor.fabric import session
session.BEAT_EVERY_S /= {TIMES}
session.STATUS_EVERY_S /= {TIMES}
from supervisor.cli import main
main()
"""
HURRIED_ID = CLIENT_ID[::-1]


def private_kib(pid: int) -> int:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_"))


def processor_ns(pid: int) -> dict[str, int]:
    """The time of each thread of a process on a processor."""
    return {
        thread.name: int((thread / "schedstat").read_text().split()[0])
        for thread in Path(f"/proc/{pid}/task").iterdir()
    }


def used_percent(before: dict[str, int], after: dict[str, int], seconds: float) -> float:
    """Of a core. A thread that has ended meanwhile is left out."""
    ns = sum(value - before.get(thread, 0) for thread, value in after.items())
    return 100 * ns / (1e9 * seconds)


def pid_of(running: Service) -> int:
    pid = running.runtime.front_pid()
    if pid is None:
        sys.exit("a front has ended")
    return pid


async def main(seconds: float, n_rounds: int) -> None:
    async with control_server() as server:
        server.valid.add(HURRIED_ID)
        joined = network(server)
        hurried = joined | {"GPUFC_CLIENT_ID": HURRIED_ID.hex()}
        with (
            tempfile.TemporaryDirectory() as folder,
            service(Path(folder) / "off", environ=FAKE) as off,
            service(Path(folder) / "on", environ=joined) as on,
            mock.patch.object(services, "COMMAND", [sys.executable, "-c", HURRIED]),
            service(Path(folder) / "often", environ=hurried) as often,
        ):
            await server.until(lambda: {CLIENT_ID, HURRIED_ID} <= server.models.keys())
            await asyncio.sleep(SETTLED_S)  # what follows a start is over
            await measure([pid_of(one) for one in (off, on, often)], seconds, n_rounds)
        print(
            f"{len(server.heartbeats)} heartbeats, one each {session.BEAT_EVERY_S:.0f} s in truth"
        )


async def measure(pids: list[int], seconds: float, n_rounds: int) -> None:
    print(
        f"| round | off, % of a core | online | {TIMES} times | cost | KiB, off | online | more |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    costs, grown = [], []
    for number in range(1, n_rounds + 1):
        before = [processor_ns(pid) for pid in pids]
        await asyncio.sleep(seconds)
        after = [processor_ns(pid) for pid in pids]
        used = [used_percent(*pair, seconds) for pair in zip(before, after, strict=True)]
        kib = [private_kib(pid) for pid in pids]
        costs.append((used[2] - used[0]) / TIMES)
        grown.append(kib[1] - kib[0])
        print(
            f"| {number} | {used[0]:.3f} | {used[1]:.3f} | {used[2]:.3f} | {costs[-1]:.4f} |"
            f" {kib[0]:,} | {kib[1]:,} | {grown[-1]:+,} |",
            flush=True,
        )
    print(f"\nmedians: {median(costs):.4f} % of a core, {median(grown):+,.0f} KiB")


if __name__ == "__main__":
    asyncio.run(main(float((sys.argv[1:] or ["120"])[0]), int((sys.argv[2:] or ["5"])[0])))
