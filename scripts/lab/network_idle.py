"""Compare idle fronts: one without a network, one that is logged in. Memory and processor time.

    python -m scripts.lab.network_idle [SECONDS] [ROUNDS]

Both run at the same time, so that what disturbs one disturbs the other. Processor time is the
scheduler's, in nanoseconds, summed over all threads of the front. A round should hold a heartbeat
(120 s) and the models (240 s).
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.fakes.control_server import control_server
from tests.integration.fake_service import FAKE
from tests.integration.test_network import network
from tests.service import Service, service

SETTLED_S = 20.0


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
    assert pid is not None
    return pid


async def main(seconds: float, n_rounds: int) -> None:
    async with control_server() as server:
        with (
            tempfile.TemporaryDirectory() as folder,
            service(Path(folder) / "off", environ=FAKE) as off,
            service(Path(folder) / "on", environ=network(server)) as on,
        ):
            await server.joined()
            await asyncio.sleep(SETTLED_S)  # what follows a start is over
            pids = (pid_of(off), pid_of(on))
            print("| round | off, % of a core | online | more | off, KiB | online | more |")
            print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
            differences = []
            for number in range(1, n_rounds + 1):
                before = [processor_ns(pid) for pid in pids]
                await asyncio.sleep(seconds)
                after = [processor_ns(pid) for pid in pids]
                without, joined = (
                    used_percent(*pair, seconds) for pair in zip(before, after, strict=True)
                )
                kib = [private_kib(pid) for pid in pids]
                differences.append(joined - without)
                print(
                    f"| {number} | {without:.4f} | {joined:.4f} | {joined - without:+.4f} |"
                    f" {kib[0]:,} | {kib[1]:,} | {kib[1] - kib[0]:+,} |",
                    flush=True,
                )
            print(
                f"\nmedian: {median(differences):+.4f} % of a core; {len(server.heartbeats)} beats"
            )


if __name__ == "__main__":
    asyncio.run(main(float((sys.argv[1:] or ["300"])[0]), int((sys.argv[2:] or ["3"])[0])))
