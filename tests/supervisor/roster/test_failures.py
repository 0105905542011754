"""Loads that fail, and workers that die: what comes back, and what cools down."""

import asyncio

import pytest

from gpufc.config import ModelConfig
from gpufc.errors import EngineUnavailable
from tests.supervisor.fleet.fake_edge import KILLED
from tests.supervisor.fleet.scripted import BROKEN, Script, memory_short
from tests.supervisor.roster.conftest import MakeRig

COOL_DOWN_S = 10.0


async def test_a_broken_file_cools_down_and_is_told_apart(make: MakeRig) -> None:
    rig = make()
    rig.fleet.edge.scripts[rig.paths["a"]] = Script(loads=(BROKEN, BROKEN))
    rig.want("a")
    await rig.until_state("a", "failed")
    await rig.settle()
    state = rig.state("a")
    assert "cut off" in state.detail
    assert state.retry_after_s == pytest.approx(COOL_DOWN_S)
    assert rig.states["b"] == "unloaded"
    rig.want("a")
    await rig.until(lambda: rig.demand.refused)
    assert rig.demand.refused[-1][1].retry_after_s == pytest.approx(COOL_DOWN_S)
    assert rig.n_loads == {"a": 1}
    rig.later(COOL_DOWN_S + 0.1)
    rig.want("a")
    await rig.until(lambda: rig.n_loads == {"a": 2})
    await rig.until_state("a", "failed")
    await rig.settle()
    assert rig.state("a").retry_after_s == pytest.approx(2 * COOL_DOWN_S)
    rig.later(2 * COOL_DOWN_S + 0.1)
    rig.want("a")
    await rig.until_state("a", "ready")


async def test_another_file_ends_the_cool_down(make: MakeRig) -> None:
    rig = make()
    rig.fleet.edge.scripts[rig.paths["a"]] = Script(loads=(BROKEN,))
    rig.want("a")
    await rig.until_state("a", "failed")
    await rig.settle()
    rig.roster.renew("a")
    rig.want("a")
    await rig.until_state("a", "ready")


async def test_a_crashed_worker_comes_back_in_its_place(make: MakeRig) -> None:
    rig = make(fits=1)
    rig.want("a")
    await rig.until_state("a", "ready")
    rig.fleet.edge.process_of(1).exit(KILLED)
    await rig.until_state("a", "restarting")
    await rig.until_state("a", "ready")
    assert rig.n_loads == {"a": 1}
    assert rig.state("a").workers == 1


async def test_a_closed_worker_that_dies_comes_back_open(make: MakeRig) -> None:
    rig = make(fits=1)
    await rig.roster.load("a")
    rig.use("a", 1)
    rig.later(60.0)
    rig.want("b")
    await rig.settle()
    rig.later(60.0)  # `b` has waited too long: `a` gets nothing new
    await rig.until(lambda: rig.demand.closed == {1})
    rig.use("a", 0)
    rig.demand.waiting.pop("b")
    rig.fleet.edge.process_of(1).exit(KILLED)
    await rig.until(lambda: rig.demand.workers["a"] == [2])
    await rig.settle()
    assert rig.demand.usage("a").has_worker


async def test_the_only_model_stays_failed_until_its_operator_acts(make: MakeRig) -> None:
    rig = make(a=ModelConfig(keep_alive_s=60.0))
    rig.fleet.edge.scripts[rig.paths["a"]] = Script(loads=(BROKEN,))
    await rig.until_state("a", "failed")
    rig.later(1000.0)
    await rig.settle()
    assert rig.states["a"] == "failed"
    assert rig.fleet.group("a").places
    with pytest.raises(EngineUnavailable, match="cut off"):
        await asyncio.wait_for(rig.roster.load("a"), 60)


async def test_a_load_that_lacks_memory_is_tried_once_with_the_smallest_cache(
    make: MakeRig,
) -> None:
    rig = make()
    short = memory_short(needed=2 << 30, available=1 << 30)
    rig.fleet.edge.scripts[rig.paths["a"]] = Script(loads=(short, short, short))
    rig.want("a")
    await rig.until_state("a", "ready")
    assert [boot.model.kv_cells for boot in rig.fleet.edge.booted] == [None, None, None, 4096]
    assert rig.n_loads == {"a": 2}
    assert rig.states["b"] == "unloaded"


async def test_a_load_that_lacks_memory_even_so_cools_down(make: MakeRig) -> None:
    rig = make(a=ModelConfig(kv_cells=4096), b=ModelConfig())
    short = memory_short(needed=2 << 30, available=1 << 30)
    rig.fleet.edge.scripts[rig.paths["a"]] = Script(loads=(short, short, short))
    rig.want("a")
    await rig.until_state("a", "failed")
    assert rig.n_loads == {"a": 1}
    await rig.settle()
    assert list(rig.shown.failed()) == ["a"]
