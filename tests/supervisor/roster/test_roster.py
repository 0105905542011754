"""What is loaded when it is wanted, what goes when it is idle or in the way, and what stays."""

import os

from gpufc.config import ModelConfig
from gpufc.errors import EngineUnavailable
from supervisor.roster.terms import MIN_STAY_S
from tests.supervisor.fleet.scripted import Script
from tests.supervisor.roster.conftest import MakeRig
from tests.supervisor.roster.rig import GIB


async def test_a_model_is_loaded_when_requests_want_it_and_not_before(make: MakeRig) -> None:
    rig = make()
    await rig.settle()
    assert rig.states == {"a": "unloaded", "b": "unloaded"}
    rig.want("a")
    await rig.until_state("a", "ready")
    assert rig.states == {"a": "ready", "b": "unloaded"}
    assert rig.fleet.n_loads_for_requests == 1


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
