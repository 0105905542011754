"""Model files that a machine must have before a worker starts there."""

import asyncio
from pathlib import Path

import pytest

from gpufc.ids import Epoch
from supervisor.cluster.messages import (
    Forgo,
    NotObtained,
    Obtain,
    Obtained,
    Obtaining,
    Trouble,
)
from supervisor.cluster.wire import boot_digest
from supervisor.fleet import events as ev
from supervisor.fleet.states import WorkerState
from tests.supervisor.remote.conftest import Bench, Line
from tests.supervisor.remote.fake_channel import FakeChannel, held


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


async def obtains(host: FakeChannel, n: int = 1) -> Epoch:
    """Wait until a host was told to have files at hand so many times. The last epoch."""
    async with asyncio.timeout(60):
        while len(found := [one for one in host.sent if isinstance(one, Obtain)]) < n:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return found[-1].epoch


async def detail(line: Line, text: str) -> None:
    async with asyncio.timeout(60):
        await line.runner.wait_until(lambda: line.life.detail == text)


async def test_a_worker_starts_once_its_machine_has_the_files(bench: Bench, file: str) -> None:
    line, host = bench.line(model_path=file), bench.host("a")
    epoch = await obtains(host)
    bench.machines.message(host, Obtaining(epoch, "copying", "m.gguf", 42, 100))
    await detail(line, "a: copying m.gguf, 42 %")
    assert (line.life.state, line.runner.awaited) == (WorkerState.PLACING, None)
    assert bench.machines.prepared_on("a") == ["copying m.gguf, 42 %"]
    assert host.spawns() == []
    bench.machines.message(host, Obtained(epoch))
    await bench.ready_on(line, host)
    assert bench.machines.prepared_on("a") == []


async def test_a_copy_that_fails_is_no_failed_start(bench: Bench, file: str) -> None:
    line, first = bench.line(model_path=file), bench.host("a")
    epoch = await obtains(first)
    bench.machines.message(first, NotObtained(epoch, Trouble.NO_SPACE, "1 GB left"))
    await line.until_it_waits()
    assert line.runner.awaited == "no machine that has joined can run m (a: no space: 1 GB left)"
    second = bench.host("b")
    bench.machines.message(second, Obtained(await obtains(second)))
    await bench.ready_on(line, second)
    status = line.runner.status()
    assert (status.restarts, status.last_exit) == (0, None)
    bench.machines.message(first, Obtained(epoch))  # too late
    assert first.spawns() == []


async def test_a_machine_that_is_lost_while_it_copies_is_replaced(bench: Bench, file: str) -> None:
    line, first = bench.line(model_path=file), bench.host("a")
    await obtains(first)
    first.lose()
    second = bench.host("b")
    bench.machines.message(second, Obtained(await obtains(second)))
    await bench.ready_on(line, second)
    assert first.spawns() == []


async def test_a_worker_that_comes_back_ends_a_copy_elsewhere(bench: Bench, file: str) -> None:
    line, copying = bench.line(model_path=file), bench.host("b")
    epoch = await obtains(copying)
    digest = boot_digest(line.spec.boot(Epoch(1), "", ""))
    host = bench.host("a", held=(held(line.spec.name, digest),))
    assert len(host.adoptions) == 1  # type: ignore[attr-defined]
    assert Forgo(epoch) in copying.sent
    await line.until(WorkerState.STARTING)
    assert bench.machines.hosts.free_slots("b") == [0]
    assert bench.machines.hosts.free_slots("a") == []


async def test_a_stop_ends_a_copy(bench: Bench, file: str) -> None:
    line, host = bench.line(model_path=file), bench.host("a")
    epoch = await obtains(host)
    line.runner.post(ev.StopRequested())
    await line.until(WorkerState.STOPPED)
    assert Forgo(epoch) in host.sent
    assert bench.machines.hosts.free_slots("a") == [0]


async def test_a_drained_machine_copies_no_further(bench: Bench, file: str) -> None:
    line, host = bench.line(model_path=file), bench.host("a")
    epoch = await obtains(host)
    bench.machines.hosts.drain("a", is_drained=True)
    bench.machines.changed()
    await line.until_it_waits()
    assert line.runner.awaited == "waiting for a machine with room (a: drained)"
    assert Forgo(epoch) in host.sent
