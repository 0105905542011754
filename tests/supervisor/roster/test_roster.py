"""What is loaded when it is wanted, what goes when it is idle or in the way, and what stays."""

import asyncio
import os

import pytest

from gpufc.config import ModelConfig
from gpufc.errors import EngineUnavailable, Overloaded
from supervisor.roster.terms import MIN_STAY_S
from tests.supervisor.fleet.fake_edge import KILLED
from tests.supervisor.fleet.scripted import BROKEN, Script, memory_short
from tests.supervisor.roster.rig import GIB, MakeRig

COOL_DOWN_S = 10.0


async def test_a_model_is_loaded_when_requests_want_it_and_not_before(make: MakeRig) -> None:
    rig = make()
    await rig.settle()
    assert rig.states == {"a": "unloaded", "b": "unloaded"}
    rig.want("a")
    await rig.until_state("a", "ready")
    assert rig.states == {"a": "ready", "b": "unloaded"}


async def test_requests_for_a_loading_model_join_one_load(make: MakeRig) -> None:
    rig = make()
    rig.fleet.edge.scripts[rig.paths["a"]] = Script(is_slow=True)
    rig.want("a")
    await rig.until_state("a", "loading")
    rig.want("a", 5)
    await rig.settle()
    rig.fleet.edge.finish_load(1)
    await rig.until_state("a", "ready")
    await rig.settle()
    assert rig.n_loads == {"a": 1}


async def test_an_idle_model_goes_after_its_keep_alive_and_comes_back(make: MakeRig) -> None:
    rig = make(a=ModelConfig(keep_alive_s=60.0), b=ModelConfig())
    rig.want("a")
    await rig.until_state("a", "ready")
    rig.use("a", 1)
    await rig.settle()
    rig.later(100.0)
    await rig.settle()
    assert rig.states["a"] == "busy"
    rig.use("a", 0)
    await rig.settle()
    rig.later(59.0)
    await rig.settle()
    assert rig.states["a"] == "ready"
    rig.later(2.0)
    await rig.until_state("a", "unloaded")
    assert rig.fleet.edge.log == ["export 1", "shutdown 1"]
    rig.want("a")
    await rig.until_state("a", "ready")
    assert rig.n_loads == {"a": 2}
    assert rig.fleet.edge.log[2:] == ["import 2"]
    assert rig.fleet.made_room[1:] == [GIB]


async def test_a_short_request_renews_the_keep_alive(make: MakeRig) -> None:
    rig = make(a=ModelConfig(keep_alive_s=60.0), b=ModelConfig())
    rig.want("a")
    await rig.until_state("a", "ready")
    for _ in range(5):
        rig.later(50.0)
        rig.demand.changed("a")  # it began and ended between two looks
        await rig.settle()
    assert (rig.states["a"], rig.n_loads) == ("ready", {"a": 1})


async def test_an_idle_model_makes_room_for_another(make: MakeRig) -> None:
    rig = make(fits=1)
    rig.want("a")
    await rig.until_state("a", "ready")
    rig.later(MIN_STAY_S)
    rig.want("b")
    await rig.until_state("b", "ready")
    assert rig.states == {"a": "unloaded", "b": "ready"}


async def test_a_busy_model_is_not_unloaded_for_another(make: MakeRig) -> None:
    rig = make(fits=1)
    rig.want("a")
    await rig.until_state("a", "ready")
    rig.use("a", 3)
    rig.later(1000.0)
    rig.want("b")
    await rig.settle()
    rig.later(1000.0)
    await rig.settle()
    assert rig.states == {"a": "busy", "b": "waiting"}
    assert "others are busy" in rig.state("b").detail or "busy" in rig.shown.note("b")
    rig.use("a", 0)
    await rig.until_state("b", "ready")
    assert rig.states["a"] == "unloaded"


async def test_the_model_used_the_longest_ago_makes_room(make: MakeRig) -> None:
    rig = make(fits=2, a=ModelConfig(), b=ModelConfig(), c=ModelConfig())
    for model in "ab":
        rig.want(model)
        await rig.until_state(model, "ready")
        rig.later(MIN_STAY_S)
    rig.demand.changed("a")  # used once more
    await rig.settle()
    rig.later(MIN_STAY_S)
    rig.want("c")
    await rig.until_state("c", "ready")
    assert rig.states == {"a": "ready", "b": "unloaded", "c": "ready"}


async def test_a_pinned_model_is_loaded_at_the_start_and_stays(make: MakeRig) -> None:
    rig = make(fits=1, a=ModelConfig(pinned=True), b=ModelConfig())
    await rig.until_state("a", "ready")
    rig.later(1000.0)
    rig.want("b")
    await rig.until(lambda: rig.demand.refused)
    assert rig.states["a"] == "ready"
    model, error = rig.demand.refused[0]
    assert (model, isinstance(error, EngineUnavailable)) == ("b", True)
    assert "a stay" in error.message


async def test_a_model_that_cannot_fit_is_refused_before_anything_is_unloaded(
    make: MakeRig,
) -> None:
    rig = make(fits=1)
    rig.want("a")
    await rig.until_state("a", "ready")
    rig.later(MIN_STAY_S)
    os.truncate(rig.paths["b"], 8 << 30)
    rig.roster.renew("b")
    rig.want("b")
    await rig.until(lambda: rig.demand.refused)
    assert "needs 8" in rig.demand.refused[0][1].message
    await rig.settle()
    assert (rig.states["a"], rig.n_loads) == ("ready", {"a": 1})


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


async def test_an_operator_loads_and_unloads(make: MakeRig) -> None:
    rig = make()
    await rig.roster.load("a")
    assert rig.states["a"] == "ready"
    await rig.roster.load("a")  # it is there
    await rig.roster.unload("a")
    assert rig.states["a"] == "unloaded"
    assert rig.n_loads == {"a": 1}


async def test_the_operator_is_told_why_a_load_fails(make: MakeRig) -> None:
    rig = make()
    rig.fleet.edge.scripts[rig.paths["a"]] = Script(loads=(BROKEN,))
    with pytest.raises(EngineUnavailable, match="cut off"):
        await rig.roster.load("a")


async def test_a_busy_model_is_unloaded_once_its_requests_have_ended(make: MakeRig) -> None:
    rig = make()
    await rig.roster.load("a")
    rig.use("a", 2)
    await rig.settle()
    going = asyncio.create_task(rig.roster.unload("a"))
    await rig.settle()
    assert not going.done()
    assert rig.demand.closed == {1}
    rig.use("a", 0)
    await asyncio.wait_for(going, 60)
    assert rig.states["a"] == "unloaded"


async def test_requests_of_a_model_that_is_to_go_wait_for_its_place(
    make: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make()
    await rig.roster.load("a")
    rig.use("a", 1)
    await rig.settle()
    going = asyncio.create_task(rig.roster.unload("a"))
    await rig.settle()
    rig.want("a")
    await rig.settle()
    assert "no_place_for_a_load" not in caplog.text
    rig.use("a", 0)
    await rig.until(lambda: rig.n_loads == {"a": 2})
    await rig.until_state("a", "ready")
    await asyncio.wait_for(going, 60)
    assert "no_place_for_a_load" not in caplog.text


async def test_an_unload_that_is_given_up_is_not_looked_after(make: MakeRig) -> None:
    rig = make()
    await rig.roster.load("a")
    rig.use("a", 1)
    await rig.settle()
    going = asyncio.create_task(rig.roster.unload("a"))
    await rig.settle()
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    assert not rig.roster._unloading


async def test_a_replacement_that_begins_during_an_unload_goes_first(make: MakeRig) -> None:
    rig = make()
    await rig.roster.load("a")
    group = rig.fleet.group("a")
    (place,) = group.places
    going = asyncio.create_task(group.unload(place))
    await asyncio.sleep(0)  # it ends the upkeep now
    with place.begin_replacement(), pytest.raises(Overloaded):
        await going
    assert place.has_worker


async def test_a_request_says_how_long_its_model_stays(make: MakeRig) -> None:
    rig = make()
    await rig.roster.load("a")
    rig.roster.keep_alive("a", -1.0)
    rig.later(100_000.0)
    await rig.settle()
    assert (rig.states["a"], rig.state("a").expires_in_s) == ("ready", None)
    rig.roster.keep_alive("a", 0.0)
    await rig.until_state("a", "unloaded")


async def test_a_wish_that_may_not_shorten_the_configured_time_only_lengthens_it(
    make: MakeRig,
) -> None:
    rig = make(a=ModelConfig(keep_alive_s=60.0), b=ModelConfig())
    await rig.roster.load("a")
    for wanted_s, stays_s in ((0.0, 60.0), (30.0, 60.0), (90.0, 90.0), (-1.0, None)):
        rig.roster.keep_alive("a", wanted_s, may_shorten=False)
        await rig.settle()
        assert rig.roster.terms["a"].keep_alive_s == stays_s
    assert rig.states["a"] == "ready"


async def test_the_only_model_stays_whatever_requests_wish(make: MakeRig) -> None:
    rig = make(a=ModelConfig())
    await rig.until_state("a", "ready")  # it is preloaded
    rig.roster.keep_alive("a", 0.0)
    rig.later(100_000.0)
    await rig.settle()
    assert rig.states["a"] == "ready"


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


async def test_replicas_are_loaded_one_after_another(make: MakeRig) -> None:
    rig = make(a=ModelConfig(replicas=3), b=ModelConfig())
    rig.want("a")
    await rig.until(lambda: rig.state("a").workers == 3)
    assert rig.n_loads == {"a": 3}


async def test_a_replica_needs_the_memory_of_its_own_devices(make: MakeRig) -> None:
    rig = make(a=ModelConfig(replicas=2, devices="CUDA0;CUDA1"), b=ModelConfig())
    rig.want("a")
    await rig.until(lambda: rig.state("a").workers == 2)
    booted = [one.model.devices for one in rig.fleet.edge.booted]
    assert booted == ["CUDA0", "CUDA1"]


async def test_a_forgotten_model_is_removed_once_it_is_idle(make: MakeRig) -> None:
    rig = make()
    await rig.roster.load("a")
    rig.use("a", 1)
    await rig.settle()
    rig.roster.forget("a")
    await rig.settle()
    assert rig.fleet.models() == ["b"]
    assert (rig.fleet.removed, rig.demand.forgotten) == ([], [])
    rig.use("a", 0)
    await rig.until(lambda: rig.fleet.removed == ["a"])
    assert rig.demand.forgotten == ["a"]


async def test_many_loads_leave_nothing_behind(make: MakeRig) -> None:
    rig = make()
    for _ in range(15):
        await rig.roster.load("a")
        await rig.roster.unload("a")
    assert rig.roster.workers.all() == []
    assert len(rig.roster.workers._tasks) == 0
    assert rig.n_loads == {"a": 15}


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
