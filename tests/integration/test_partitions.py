"""The connection between a front and its machines: cut, stalled, one-way, slow, and the front that
comes back. Workers go on without a load, and no text changes.

Each host dials through a proxy of its own. The lease is long, so that only the events that a test
makes end workers, on a slow machine too.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.fake_service import fake_text, joined, stream
from tests.machines import Cluster, cluster
from tests.proxy import Proxy, Way, proxies
from tests.service import wait_for

N_TOKENS = 300
N_STREAMS = 8
SILENCE_S = 8.0
"""The largest: the watchdog judges a worker that is silent for 10 s."""
SETTINGS = f"remote_silence_s = {SILENCE_S}\nremote_lease_s = 600.0"

pytestmark = pytest.mark.slow


class Cell:
    """Two machines behind proxies."""

    def __init__(self, running: Cluster, ways: dict[str, Proxy]) -> None:
        self.running = running
        self.proxy = ways["a"]

    def row(self) -> dict[str, Any]:
        """The first machine's in `/stats`."""
        return self.running.rows()["a"]

    def settle(self) -> dict[str, int]:
        """Bring both machines back, trusted. Machine → pid of its worker."""
        self.proxy.go_on()
        for name in ("a", "b"):
            wait_for(
                lambda name=name: (
                    self.running.rows().get(name, {}).get("state") in {"joined", "shunned"}
                ),
                why=f"{name} is there",
            )
            list(self.running.front.control.drain_host(name, undo=True))
        return self.running.wait_ready("a", "b")

    def exits(self) -> list[str]:
        return [row["last_exit"]["reason"] for row in self.running.workers() if row["last_exit"]]


@contextmanager
def two_machines(folder: Path, settings: str) -> Iterator[Cell]:
    with (
        cluster(folder, replicas=2, more=settings) as running,
        proxies(running.address, "a", "b") as ways,
    ):
        for name, proxy in ways.items():
            running.join(name, through=proxy.address)
        yield Cell(running, ways)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    with two_machines(tmp_path_factory.mktemp("partitions"), SETTINGS) as made:
        yield made


@pytest.fixture
def cell(shared: Cell) -> Cell:
    shared.settle()
    return shared


@asynccontextmanager
async def whole_streams(cell: Cell, n_tokens: int = N_TOKENS) -> AsyncIterator[None]:
    """Streams on both machines meanwhile. None may lose, repeat or change a token."""
    async with aiohttp.ClientSession() as session:
        url = cell.running.front.url
        streams = [
            asyncio.create_task(stream(session, url, f"prompt {n}", max_tokens=n_tokens))
            for n in range(N_STREAMS)
        ]

        def both() -> bool:
            return sum(row["sequences_running"] > 0 for row in cell.running.workers()) == 2

        await until(both, "both compute")
        yield
        texts = [joined(await one) for one in streams]
    assert texts == [fake_text(f"prompt {n}", n_tokens) for n in range(N_STREAMS)]


async def until(holds: Callable[[], object], why: str) -> None:
    await asyncio.to_thread(wait_for, holds, 120.0, why)


async def test_a_cut_connection_costs_no_load(cell: Cell) -> None:
    before, n_losses = cell.running.ready(), cell.row()["n_losses"]
    async with whole_streams(cell):
        cell.proxy.cut()
        await until(lambda: cell.row()["n_losses"] > n_losses, "the front has noticed")
    assert "host_lost" in cell.exits()
    assert await asyncio.to_thread(cell.settle) == before


async def test_a_partition_that_heals_before_the_limit_is_not_noticed(cell: Cell) -> None:
    before, n_losses = cell.running.workers(), cell.row()["n_losses"]
    async with whole_streams(cell):
        cell.proxy.stall()
        await until(lambda: time.time() - cell.row()["heard_at"] > SILENCE_S / 5, "it is silent")
        cell.proxy.go_on()
    assert cell.row()["n_losses"] == n_losses
    assert [row["epoch"] for row in cell.running.workers()] == [row["epoch"] for row in before]


@pytest.mark.parametrize("ways", [(), (Way.TO_FRONT,)], ids=["both ways", "to the front"])
async def test_a_partition_beyond_the_limit_costs_no_load_once_it_has_healed(
    cell: Cell, ways: tuple[Way, ...]
) -> None:
    """What the cut-off worker has computed meanwhile is dropped: its epoch has ended."""
    before = cell.running.ready()
    async with whole_streams(cell):
        cell.proxy.stall(*ways)
        await until(lambda: cell.row()["state"] == "lost", "the machine is lost")
        cell.proxy.go_on()
    assert "node_lost" in cell.exits()
    assert await asyncio.to_thread(cell.settle) == before


async def test_a_slow_connection_kills_nothing(cell: Cell) -> None:
    before, n_losses = cell.running.ready(), cell.row()["n_losses"]
    cell.proxy.slow_down(0.1)
    async with whole_streams(cell, 50):
        pass
    assert cell.row()["n_losses"] == n_losses
    assert cell.running.ready() == before


async def test_an_upgrade_of_the_front_costs_no_load(cell: Cell) -> None:
    before = cell.running.ready()
    async with whole_streams(cell):
        await asyncio.to_thread(list, cell.running.front.control.upgrade())
    assert await asyncio.to_thread(cell.settle) == before


async def test_requests_wait_while_all_machines_are_gone(cell: Cell) -> None:
    async with whole_streams(cell):
        for host in cell.running.hosts.values():
            host.end()
        await until(lambda: not cell.running.ready(), "no worker is left")
        told = cell.running.front.status()["front"]["condition"]["detail"]
        assert "a: lost" in told
        assert "b: lost" in told
        for name in ("a", "b"):
            cell.running.come_back(name)
        await asyncio.to_thread(cell.settle)


def test_a_front_that_was_killed_goes_on_with_the_workers(cell: Cell) -> None:
    """The last test: its front is another one."""
    before = cell.running.ready()
    with cell.running.another_front():
        assert cell.settle() == before


async def test_a_loss_towards_the_host_ends_its_workers_with_the_lease(tmp_path: Path) -> None:
    """The front hears the host and notices nothing. The host hears no lease, and leaves."""
    with two_machines(tmp_path, "remote_lease_s = 5.0") as cell:
        await asyncio.to_thread(cell.settle)
        async with whole_streams(cell):
            n_losses = cell.row()["n_losses"]
            cell.proxy.stall(Way.TO_HOST)
            await until(lambda: cell.row()["n_losses"] > n_losses, "the host has left")
            cell.proxy.go_on()
        assert "no lease for 5 s: 1 workers end" in cell.running.hosts["a"].output
        await asyncio.to_thread(cell.settle)


async def test_a_front_that_was_killed_goes_on_with_a_model_that_a_request_had_loaded(
    tmp_path: Path,
) -> None:
    late = '[models.late]\nspread = "machines"\nbackend = "fake"\npreload = false\n'
    settings = "workers_per_machine = 2\nremote_lease_s = 600.0"
    with cluster(
        tmp_path, "a", replicas=1, more=settings, of_model=f"preload = true\n{late}"
    ) as running:

        async def asked() -> None:
            async with aiohttp.ClientSession() as session:
                body = {"prompt": "x", "max_tokens": 2, "model": "late"}
                async with session.post(
                    f"{running.front.url}/v1/completions", json=body
                ) as response:
                    assert response.status == 200, await response.text()

        def pids() -> set[int]:
            return {row["pid"] for row in running.workers() if row["state"] == "ready"}

        await asked()
        before = pids()
        assert len(before) == 2
        with running.another_front():
            await until(lambda: pids() == before, "both workers are adopted")
            await asked()
            assert pids() == before
