"""A loaded spare that serves at once, and replacements beside it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.port import ConditionStatus, SpareState
from tests.supervisor.fleet.fake_edge import KILLED
from tests.supervisor.fleet.scripted import Bench, Script

OTHER = Script(fingerprint="other")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.start()
    yield bench
    await bench.close()


async def kept_hot(bench: Bench) -> None:
    async with asyncio.timeout(60):
        await bench.replacer.keep_hot()


async def test_a_hot_spare_serves_in_the_moment_in_which_the_worker_dies(bench: Bench) -> None:
    await kept_hot(bench)
    assert [row.state for row in bench.place.spares()] == [SpareState.HOT]
    bench.edge.process_of(1).exit(KILLED)
    await bench.until("lost 1")
    # in this order streams of the lost worker find the spare, beside other replicas, too
    assert bench.calls == ["ready 1", "ready 2", "lost 1"]
    assert bench.place.condition().status is ConditionStatus.OK
    await bench.until_changed(lambda: bench.place.spares())
    (row,) = bench.place.workers()
    assert (row.epoch, row.restarts) == (2, 1)
    assert row.last_exit is not None
    assert row.last_exit.reason is Reason.KILLED


async def test_the_dead_worker_comes_back_as_the_next_hot_spare(bench: Bench) -> None:
    await kept_hot(bench)
    bench.edge.process_of(1).exit(KILLED)
    await bench.until("lost 1")
    await bench.until_changed(
        lambda: bench.place.spares() and bench.place.spares()[0].state is SpareState.HOT
    )
    bench.edge.process_of(2).exit(KILLED)
    await bench.until("lost 2")
    assert bench.calls == ["ready 1", "ready 2", "lost 1", "ready 3", "lost 2"]


async def test_no_other_spare_is_loaded_while_the_dead_worker_ends(bench: Bench) -> None:
    await kept_hot(bench)
    dying, line = bench.edge.process_of(1), bench.place.runner
    gone, dying.exit = dying.exit, lambda _: None  # its memory takes time to be given back
    assert dying.ending is not None
    dying.ending(KILLED)
    await bench.until("ready 2")
    await kept_hot(bench)
    assert bench.place.candidate is not None
    assert bench.place.candidate.runner is line
    gone(KILLED)
    await bench.until_changed(lambda: line.worker)
    assert len(bench.edge.booted) == 3


async def test_a_restart_takes_the_hot_spare(bench: Bench) -> None:
    await kept_hot(bench)
    await bench.restart()
    assert bench.calls == ["ready 1", "ready 2", "lost 1"]
    assert len(bench.edge.booted) == 2


async def test_a_swap_does_not_wait_for_a_spare_that_loads(bench: Bench) -> None:
    bench.edge.scripts["/old"] = Script(is_slow=True)
    bench.edge.scripts["/new"] = OTHER
    warming = asyncio.create_task(kept_hot(bench))
    await bench.until_changed(lambda: bench.place.spares())
    await bench.swap()
    await warming
    assert bench.calls == ["ready 1", "ready 3", "draining 1"]
    assert bench.place.spares() == []


async def test_a_restart_waits_for_a_recycling(bench: Bench) -> None:
    recycling = asyncio.create_task(bench.replacer.recycle())
    await bench.until_changed(lambda: bench.place.is_busy)
    await bench.restart()
    await recycling
    assert bench.calls == ["ready 1", "ready 2", "lost 1", "ready 3", "lost 2"]
    assert bench.restarts == [Reason.RECYCLED, Reason.RESTARTED]


async def test_nothing_is_kept_up_while_a_replacement_is_going_on(bench: Bench) -> None:
    bench.edge.scripts["/old"] = Script(is_slow=True)
    restart = asyncio.create_task(bench.restart())
    await bench.until_changed(lambda: bench.place.is_busy)
    await bench.replacer.recycle()
    await kept_hot(bench)
    await bench.until_changed(lambda: bench.place.spares()[0].state is SpareState.LOADING)
    bench.edge.finish_load(2)
    await restart
    assert len(bench.edge.booted) == 2
