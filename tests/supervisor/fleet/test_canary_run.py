"""A candidate that serves a share of the requests, and then takes over or goes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gpufc.errors import SwapRefused
from supervisor.fleet.port import ModelChange, ReplacementStage
from supervisor.routing.canary import CanaryRules, Outcome, Side
from tests.supervisor.fleet.fake_edge import KILLED
from tests.supervisor.fleet.scripted import Bench, Script

RULES = CanaryRules(share=0.5, n_enough=4, least_s=0.0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    bench.edge.scripts["/new"] = Script(fingerprint="other")
    await bench.start()
    yield bench
    await bench.close()


def swap(bench: Bench, path: str = "/new", rules: CanaryRules = RULES) -> "asyncio.Task[None]":
    change = ModelChange(model_path=path, canary=rules)
    return asyncio.create_task(bench.replacer.swap(change, tell=bench.told.append))


async def begun(bench: Bench) -> None:
    await bench.until("ready 2")
    assert bench.calls == ["ready 1", "canary 2", "ready 2"]


async def test_a_fine_canary_takes_over_and_the_old_worker_drains(bench: Bench) -> None:
    swapping = swap(bench)
    await begun(bench)
    assert [row.epoch for row in bench.place.workers()] == [1]
    for _ in range(4):
        bench.listener.canaries[0].ended(Side.CANARY, Outcome(ok=True))
    await swapping
    await bench.until("draining 1")
    assert bench.calls.count("ready 2") == 1
    assert bench.place.workers()[0].epoch == 2
    assert ReplacementStage.CANARY in bench.stages
    assert bench.stages[-1] is ReplacementStage.READY
    bench.listener.ready[0].drained()


async def test_a_failing_canary_drains_and_the_old_worker_serves_on(bench: Bench) -> None:
    swapping = swap(bench)
    await begun(bench)
    for _ in range(10):
        bench.listener.canaries[0].ended(Side.CANARY, Outcome(ok=False))
        bench.listener.canaries[0].ended(Side.STABLE, Outcome(ok=True))
    with pytest.raises(SwapRefused, match="requests failed"):
        await swapping
    await bench.until("draining 2")
    bench.listener.ready[1].drained()
    await bench.until("lost 2")
    assert [row.epoch for row in bench.place.workers()] == [1]
    assert bench.place.candidate is None
    assert not bench.place.is_busy


async def test_a_canary_that_dies_again_and_again_is_rolled_back(bench: Bench) -> None:
    swapping = swap(bench)
    await begun(bench)
    bench.edge.process_of(2).exit(KILLED)
    await bench.until("ready 3")
    bench.edge.process_of(3).exit(KILLED)
    with pytest.raises(SwapRefused, match="died 2 times"):
        await swapping
    assert "draining 1" not in bench.calls


async def test_the_same_model_needs_no_canary(bench: Bench) -> None:
    await asyncio.wait_for(swap(bench, "/old"), 60)
    assert bench.listener.canaries == []
