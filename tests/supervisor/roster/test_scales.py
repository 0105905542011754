"""What loaded workers take, as it shows in what else fits."""

from supervisor.roster.scales import GROWTH_LOOK_S
from tests.supervisor.roster.conftest import MakeRig
from tests.supervisor.roster.rig import GIB


async def test_a_worker_that_grew_while_it_served_leaves_less_room(make: MakeRig) -> None:
    rig = make(fits=2)
    rig.want("a")
    await rig.until_state("a", "ready")
    rig.own_bytes = 2 * GIB
    rig.later(GROWTH_LOOK_S)
    await rig.settle()
    rig.own_bytes = GIB
    rig.want("b")
    await rig.until_state("b", "ready")
    assert rig.states == {"a": "unloaded", "b": "ready"}


async def test_a_worker_that_shrank_keeps_its_room(make: MakeRig) -> None:
    rig = make(fits=1)
    rig.want("a")
    await rig.until_state("a", "ready")
    rig.use("a", 1)
    rig.own_bytes = 0
    rig.later(GROWTH_LOOK_S)
    rig.want("b")
    await rig.settle()
    assert rig.states == {"a": "busy", "b": "waiting"}
