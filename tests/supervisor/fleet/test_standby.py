"""Spare workers: when one is spawned, which worker it becomes, and that none is left behind."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gpufc.config import BackendKind, Standby
from supervisor.fleet.port import SpareStatus
from supervisor.fleet.standby import BESIDE_S, Spare, SparePool
from supervisor.fleet.watchdog import LIMITS
from supervisor.runtime_dir import RuntimeDir
from tests.leaks import nothing_leaks
from tests.supervisor.fleet.conftest import CHILD, Started, StartFleet, end
from tests.supervisor.fleet.test_hung_workers import (  # noqa: F401
    StartReal,
    generate,
    n_tokens,
    start_real,
)

WAITS = (sys.executable, CHILD, "ready")
DIES = (sys.executable, "-c", "raise SystemExit(3)")


async def eventually(holds: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait for a condition that no event tells."""
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


async def warm_spare(started: Started) -> SpareStatus:
    await eventually(lambda: [row for row in started.fleet.spares() if row.state == "warm"])
    return started.fleet.spares()[0]


async def killed(started: Started, times: int) -> None:
    os.kill(started.status.pid, signal.SIGKILL)
    await started.until_ready(times)


async def test_the_spare_takes_the_place_of_a_dead_worker(start: StartFleet) -> None:
    started = await start("ready", standby=Standby.WARM)
    assert started.fleet.spares() == []
    await started.until_ready()
    assert started.fleet.spares() == []  # it is not spawned while anything loads
    spare = await warm_spare(started)
    assert spare.rss_bytes > 1_000_000
    await killed(started, 2)
    assert started.status.pid == spare.pid
    assert started.fleet.spares() == []
    assert (await warm_spare(started)).pid != spare.pid


async def test_a_dead_spare_is_not_handed_out(start: StartFleet) -> None:
    started = await start("ready", standby=Standby.WARM)
    await started.until_ready()
    spare = await warm_spare(started)
    end(spare.pid)
    end(started.status.pid)  # the loop notices both ends in the same turn
    await started.until_ready(2)
    assert started.status.pid != spare.pid
    assert started.status.restarts == 1


async def test_none_is_none(start: StartFleet) -> None:
    started = await start("ready", standby=Standby.NONE)
    await started.until_ready()
    assert started.fleet.spares() == []


@pytest.mark.parametrize("now", [False, True])
async def test_stop_ends_the_spare_too(start: StartFleet, now: bool) -> None:
    started = await start("ready", standby=Standby.WARM)
    await started.until_ready()
    spare = await warm_spare(started)
    await started.fleet.stop(now=now)
    assert not psutil.pid_exists(spare.pid)
    assert started.fleet.spares() == []
    assert list(started.runtime.logs.glob(".spare-*")) == []


async def test_kills_with_a_spare_leak_nothing(start: StartFleet) -> None:
    started = await start("ready", standby=Standby.WARM)
    await started.until_ready()
    await warm_spare(started)
    with nothing_leaks():
        for n in range(2, 6):
            await killed(started, n)
            await warm_spare(started)
        await asyncio.to_thread(lambda: None)  # the writer's thread is there by now, ours too
    assert len(list(started.runtime.logs.glob(".spare-*"))) <= 1


async def test_a_real_spare_writes_to_the_log_of_its_place(start_real: StartReal) -> None:  # noqa: F811
    started = await start_real(standby=Standby.WARM, watch=LIMITS)
    await started.until_ready()
    spare = await warm_spare(started)
    os.kill(started.status.pid, signal.SIGKILL)
    worker = await started.until_ready(2)
    assert started.status.pid == spare.pid
    generate(worker, "[[decode_error@2]]")  # of which it writes a line
    await started.listener.until(lambda: len(started.listener.lost) == 2)
    assert n_tokens(started) == 2
    await started.until_ready(3)
    assert "default-0.2" in started.log
    assert "decode_failed" in started.log
    assert "decode_failed" not in (started.runtime.logs / "spare.log").read_text()


async def test_a_spare_from_before_the_fleet_becomes_the_first_worker(
    start: StartFleet, runtime: RuntimeDir
) -> None:
    spare = Spare((sys.executable, CHILD, "ready"), runtime.logs, BackendKind.LLAMA)
    started = await start("ready", standby=Standby.WARM, spare=spare)
    await started.until_ready()
    assert started.status.pid == spare.process.pid
    await warm_spare(started)  # and there will be another one
    assert started.listener.lost == []


async def test_a_spare_from_before_the_fleet_may_die_unnoticed(
    start: StartFleet, runtime: RuntimeDir
) -> None:
    spare = Spare(DIES, runtime.logs, BackendKind.LLAMA)
    await eventually(lambda: not spare.process.is_alive())
    started = await start("ready", standby=Standby.WARM, spare=spare)
    await started.until_ready()
    assert started.status.pid != spare.process.pid
    assert (await warm_spare(started)).pid != spare.process.pid
    assert started.listener.lost == []


async def test_after_each_spare_that_died_the_next_one_waits_four_times_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    pool = SparePool(DIES, tmp_path, BackendKind.FAKE, lambda: True, delay_s=0.0, backoff_s=0.01)
    refill_in = pool._refill_in

    def noted(delay_s: float) -> None:
        waits.append(delay_s)
        refill_in(delay_s)

    monkeypatch.setattr(pool, "_refill_in", noted)
    pool.refill_in(0.0)
    await eventually(lambda: len(waits) == 4)
    assert waits == pytest.approx([0.0, 0.01, 0.04, 0.16])
    pool.refill_in(0.0)  # a worker that becomes ready does not end the pause
    assert len(waits) == 4
    pool.end()
    await pool.wait_ended()


async def test_no_spare_while_something_comes_up(tmp_path: Path) -> None:
    quiet, asked = False, 0

    def is_quiet() -> bool:
        nonlocal asked
        asked += 1
        return quiet

    pool = SparePool(WAITS, tmp_path, BackendKind.FAKE, is_quiet, delay_s=0.02)
    pool.refill_in(0.02)
    await eventually(lambda: asked >= 3)
    assert pool.rows() == []
    quiet = True
    await eventually(pool.rows)
    pool.end()
    await pool.wait_ended()
    assert pool.rows() == []


async def test_a_worker_that_replaces_none_is_followed_by_a_spare_sooner(tmp_path: Path) -> None:
    pool = SparePool(WAITS, tmp_path, BackendKind.FAKE, lambda: True, delay_s=3600.0)
    pool.refill_in(3600.0)
    assert pool.rows() == []
    pool.refill_in(0.0)
    await eventually(pool.rows)
    pool.end()
    await pool.wait_ended()


async def test_a_load_for_a_request_is_followed_by_a_spare_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.fleet.standby.N_CORES", 2)
    pool = SparePool(WAITS, tmp_path, BackendKind.FAKE, lambda: False, delay_s=3600.0)
    pool.refill_in(3600.0)
    pool.refill_beside_load()
    await eventually(pool.rows)
    (first,) = pool.rows()
    pool.refill_beside_load()  # the load has not taken the spare
    await asyncio.sleep(2 * BESIDE_S)
    assert [row.pid for row in pool.rows()] == [first.pid]
    pool.end()
    await pool.wait_ended()


async def test_on_one_core_no_spare_is_spawned_beside_a_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.fleet.standby.N_CORES", 1)
    pool = SparePool(WAITS, tmp_path, BackendKind.FAKE, lambda: False, delay_s=3600.0)
    pool.refill_beside_load()
    assert pool._timer is None


def test_links_of_a_front_that_was_killed_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".spare-00").symlink_to(tmp_path / "default-0.log")
    SparePool(WAITS, tmp_path, BackendKind.FAKE, lambda: True, delay_s=1.0)
    assert list(tmp_path.iterdir()) == []


def test_the_spare_ends_with_a_killed_front(tmp_path: Path) -> None:
    front = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.child_front", str(tmp_path / "r"), "warm"],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
    )
    with front:
        assert front.stdout is not None
        worker, spare = (int(front.stdout.readline()) for _ in range(2))
        pidfds = [os.pidfd_open(pid) for pid in (worker, spare)]
        front.kill()
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], 60)[0]
            os.close(pidfd)
