"""Workers on other machines: their machines are killed, stopped and drained, and streams go on.

Each host is a process on loopback. The fake engine's text depends on every token before it, so
equality with `fake_text` is the whole check.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import aiohttp
import pytest

from gpufc.signals import STRAY
from tests.integration.fake_service import fake_text, joined, stream
from tests.machines import Cluster, cluster
from tests.service import wait_for

N_TOKENS = 200
N_STREAMS = 8


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("machines"), "a", "b") as made:
        yield made


@pytest.fixture
def running(shared: Cluster) -> Cluster:
    """Both machines are there, each with a ready worker. One that was struck comes back."""
    for name, host in list(shared.hosts.items()):
        if host.process.poll() is not None:
            shared.come_back(name)
        shared.front.control  # noqa: B018
    wait_for(lambda: {"a", "b"} <= set(shared.rows()), why="both machines are known")
    for name in ("a", "b"):
        wait_for(lambda name=name: shared.rows()[name]["state"] != "lost", why=f"{name} is there")
        for _ in shared.front.control.drain_host(name, undo=True):
            pass
    shared.wait_ready("a", "b")
    return shared


async def strike(running: Cluster, machine: str, do: str) -> list[str]:
    """Let streams run on both machines, strike one in the middle, and return the texts."""
    pids, began = running.ready(), time.time()
    async with aiohttp.ClientSession() as session:
        streams = [
            asyncio.create_task(
                stream(session, running.front.url, f"prompt {n}", max_tokens=N_TOKENS)
            )
            for n in range(N_STREAMS)
        ]
        await until_both_compute(running, began)
        host = running.hosts[machine]
        match do:
            case "kill the worker":
                os.kill(pids[machine], signal.SIGKILL)
            case "kill the host":
                host.process.kill()
            case "kill the machine":
                host.signal_all(signal.SIGKILL)
            case "stop the machine":
                host.signal_all(signal.SIGSTOP)
            case "end the host":
                host.process.terminate()
        return [joined(await one) for one in streams]


async def until_both_compute(running: Cluster, began: float) -> None:
    """Wait until both workers have computed since then. A look that comes late misses nothing."""
    await asyncio.to_thread(
        wait_for, lambda: len(running.front.stepped_since(began)) == 2, why="both compute"
    )


def expected() -> list[str]:
    return [fake_text(f"prompt {n}", N_TOKENS) for n in range(N_STREAMS)]


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("kill the worker", "killed"),
        ("kill the host", "host_lost"),
        ("kill the machine", "host_lost"),
        ("stop the machine", "node_lost"),
    ],
)
async def test_streams_outlive_a_strike_at_one_machine(
    running: Cluster, do: str, reason: str
) -> None:
    def exits() -> list[str]:
        return [row["last_exit"]["reason"] for row in running.workers() if row["last_exit"]]

    try:
        assert await strike(running, "a", do) == expected()
        await asyncio.to_thread(wait_for, lambda: reason in exits(), why="the front knows of it")
    finally:
        if do == "stop the machine":
            running.hosts["a"].end()  # its own processes cannot end themselves


async def test_stray_signals_end_no_host(running: Cluster) -> None:
    pids = running.ready()
    host = running.hosts["a"].process
    async with aiohttp.ClientSession() as session:
        text = asyncio.create_task(stream(session, running.front.url, "x", max_tokens=N_TOKENS))
        for number in STRAY:
            host.send_signal(number)
            os.kill(pids["a"], number)
        assert joined(await text) == fake_text("x", N_TOKENS)
    assert running.ready() == pids


async def test_a_host_that_is_told_to_end_is_drained_first(running: Cluster) -> None:
    assert await strike(running, "b", "end the host") == expected()
    assert running.hosts["b"].process.wait(60) is not None


async def test_a_drained_machine_loses_no_stream(running: Cluster) -> None:
    n_streams, n_tokens, began = 50, 120, time.time()
    async with aiohttp.ClientSession() as session:
        streams = [
            asyncio.create_task(
                stream(session, running.front.url, f"drain {n}", max_tokens=n_tokens)
            )
            for n in range(n_streams)
        ]
        await until_both_compute(running, began)
        drain = running.front.control.drain_host("b", undo=False)
        events = await asyncio.to_thread(list, drain)
        texts = [joined(await one) for one in streams]
    assert texts == [fake_text(f"drain {n}", n_tokens) for n in range(n_streams)]
    # the other machine has no room for a second worker, so this one's ends and waits
    assert events[-1]["event"] == "failed"
    assert "b: drained" in events[-1]["message"]
    assert running.rows()["b"]["workers"] == []


async def test_a_join_file_works_once(running: Cluster) -> None:
    again = running.join("thief", running.folder / "a.join")
    told = "the join file has been used"
    await asyncio.to_thread(wait_for, lambda: told in again.output, 60.0, "it is turned away")
    assert "thief" not in running.rows()
    running.hosts.pop("thief").end()


async def test_an_upgrade_loses_no_stream_of_the_machines(running: Cluster) -> None:
    """Whether the workers go on or start anew depends on the hosts' lease."""
    began = time.time()
    async with aiohttp.ClientSession() as session:
        streams = [
            asyncio.create_task(stream(session, running.front.url, f"upgrade {n}", max_tokens=200))
            for n in range(N_STREAMS)
        ]
        await until_both_compute(running, began)
        await asyncio.to_thread(list, running.front.control.upgrade())
        texts = [joined(await one) for one in streams]
    assert texts == [fake_text(f"upgrade {n}", 200) for n in range(N_STREAMS)]
    running.wait_ready("a", "b")
