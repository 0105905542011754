"""What operators and requests ask for: loads, unloads, and how long a model stays."""

import asyncio

import pytest

from gpufc.config import ModelConfig
from gpufc.errors import EngineUnavailable, Overloaded
from tests.supervisor.fleet.scripted import BROKEN, Script
from tests.supervisor.roster.conftest import MakeRig


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
        assert rig.roster.served.terms["a"].keep_alive_s == stays_s
    assert rig.states["a"] == "ready"


@pytest.mark.parametrize(
    ("admin_s", "wanted_s", "stays_s"),
    [
        (-1.0, 0.0, None),
        (-1.0, 90.0, None),
        (90.0, 30.0, 90.0),
        (10.0, 0.0, 10.0),
        (10.0, 30.0, 30.0),
    ],
)
async def test_a_wish_that_may_not_shorten_leaves_a_longer_wish(
    make: MakeRig, admin_s: float, wanted_s: float, stays_s: float | None
) -> None:
    rig = make(a=ModelConfig(keep_alive_s=60.0), b=ModelConfig())
    await rig.roster.load("a")
    rig.roster.keep_alive("a", admin_s)
    rig.roster.keep_alive("a", wanted_s, may_shorten=False)
    assert rig.roster.served.terms["a"].keep_alive_s == stays_s


async def test_the_only_model_stays_whatever_requests_wish(make: MakeRig) -> None:
    rig = make(a=ModelConfig())
    await rig.until_state("a", "ready")  # it is preloaded
    rig.roster.keep_alive("a", 0.0)
    rig.later(100_000.0)
    await rig.settle()
    assert rig.states["a"] == "ready"


async def test_many_loads_leave_nothing_behind(make: MakeRig) -> None:
    rig = make()
    for _ in range(15):
        await rig.roster.load("a")
        await rig.roster.unload("a")
    assert rig.roster.workers.all() == []
    assert len(rig.roster.workers._tasks) == 0
    assert rig.n_loads == {"a": 15}
