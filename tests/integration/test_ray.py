"""The placer on a real Ray cluster of several nodes: hosts are placed, lost, found again.

A sleeping process stands in for the worker host.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.placer.keeper import COMMAND, Keeper
from supervisor.placer.messages import Order
from tests.fakes.ray_cluster import SETTINGS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is missing (pip install 'gpufc[ray]')"
    ),
]

N_NODES = 4
WAIT_S = 120.0


class Cluster:
    """The cluster's process."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.process, self.address = process, address

    async def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n".encode())
        assert (await self.process.stdout.readline()) == b"done\n"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    (tmp_path / "gcs").mkdir()
    async with ray_cluster(N_NODES, str(tmp_path / "gcs")) as made:
        yield made


@asynccontextmanager
async def ray_cluster(n_nodes: int, *folder: str) -> AsyncIterator[Cluster]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.ray_cluster", str(n_nodes), *folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    children = []
    try:
        address = (await process.stdout.readline()).decode().strip()
        assert address
        yield Cluster(process, address)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have failed to begin
            children = psutil.Process(process.pid).children(recursive=True)
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 60.0)
        for child in children:
            if child.is_running():
                child.kill()


class Host:
    """The stand-in for a worker host, which can be told by its argument."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"sleeping-host-{folder.name}"
        script = "import sys, time; time.sleep(3600)"
        self.command = json.dumps([sys.executable, "-c", script, self.mark])

    def pids(self) -> set[int]:
        found = set()
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [""])[-1] == self.mark:
                found.add(process.pid)
        return found


async def until(holds: Callable[[], Any], why: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - processes of others, which have no event
            await asyncio.sleep(0.1)


def kept(cluster: Cluster, host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    for key, value in SETTINGS.items():
        monkeypatch.setenv(key, value)
    joins = iter(range(100))
    return Keeper(
        cluster.address,
        "cell",
        Order(2, {"CPU": 1.0}),
        lambda: f"join {next(joins)}",
        folder / "placer.log",
        command=(*COMMAND, "--host-command", host.command),
        first_wait_s=0.1,
    )


def nodes(keeper: Keeper) -> list[str]:
    return [row.node for row in keeper.placed.hosts if row.node]


async def test_hosts_are_placed_and_placed_anew_through_every_death(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path)
    keeper = kept(cluster, host, tmp_path, monkeypatch)
    keeper.start()
    try:
        await until(lambda: len(nodes(keeper)) == 2 or keeper.refusal, "placed")
        assert keeper.refusal is None
        assert len(set(nodes(keeper))) == 2
        assert len(host.pids()) == 2

        # the placer dies: the hosts stay, the next placer finds them
        before, pids, pid = nodes(keeper), host.pids(), keeper.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: keeper.n_starts == 2, "started again")
        keeper.placed = type(keeper.placed)(())
        await until(lambda: len(nodes(keeper)) == 2, "adopted")
        assert (nodes(keeper), host.pids()) == (before, pids)

        # a host's actor dies, and its host with it: another one, on another node
        victim = psutil.Process(next(iter(pids)))
        actor = victim.parent()
        assert actor is not None
        actor.kill()
        await until(lambda: not psutil.pid_exists(victim.pid), "its host has ended with it")
        await until(lambda: len(host.pids()) == 2 and set(nodes(keeper)) != set(before), "anew")

        # the head dies and comes back: nothing ends, and hosts can be placed again
        pids = host.pids()
        await cluster.tell("kill head")
        assert host.pids() == pids
        await cluster.tell("start head")
        keeper.want(3, {"CPU": 1.0})
        await until(lambda: len(host.pids()) == 3, "a third one")
        assert pids < host.pids()

        # a node dies: its host is placed on the one that is left, once that is trusted
        keeper.want(2, {"CPU": 1.0})
        await until(lambda: len(host.pids()) == 2 and len(nodes(keeper)) == 2, "two are left")
        gone = nodes(keeper)[0]
        await cluster.tell(f"kill node {gone}")
        await until(lambda: gone not in nodes(keeper) and len(nodes(keeper)) == 2, "moved")
        assert len(host.pids()) == 2
    finally:
        await keeper.stop()
    assert len(host.pids()) == 2  # the hosts outlive their placer
