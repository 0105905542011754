"""Compare idle fronts: one without a network, one that is logged in. Memory and processor time.

python scripts/lab/network_idle.py [SECONDS]
"""

import asyncio
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from tests.fakes.control_server import control_server  # noqa: E402
from tests.integration.fake_service import FAKE  # noqa: E402
from tests.integration.test_network import network  # noqa: E402
from tests.service import Service, service  # noqa: E402


def private_kib(pid: int) -> int:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_"))


async def measured(name: str, running: Service, seconds: float) -> int:
    pid = running.runtime.front_pid()
    assert pid is not None
    front = psutil.Process(pid)
    await asyncio.sleep(10.0)  # what follows a start is over
    before = sum(front.cpu_times()[:2])
    await asyncio.sleep(seconds)
    used = sum(front.cpu_times()[:2]) - before
    n_kib = private_kib(pid)
    n_modules = len([row for row in front.memory_maps() if row.path.endswith(".so")])
    print(
        f"{name:<10}{n_kib:8,} KiB private, {100 * used / seconds:.2f} % of a core,"
        f" {n_modules} libraries, {len(front.open_files())} files, {front.num_fds()} descriptors"
    )
    return n_kib


async def main() -> None:
    seconds = float(sys.argv[1]) if sys.argv[1:] else 60.0
    for _ in range(2):
        with (
            tempfile.TemporaryDirectory() as folder,
            service(Path(folder) / "run", environ=FAKE) as running,
        ):
            off = await measured("off", running, seconds)
        async with control_server() as server:
            with (
                tempfile.TemporaryDirectory() as folder,
                service(Path(folder) / "run", environ=network(server)) as running,
            ):
                await server.joined()
                on = await measured("online", running, seconds)
        print(f"difference {on - off:,} KiB")


if __name__ == "__main__":
    asyncio.run(main())
