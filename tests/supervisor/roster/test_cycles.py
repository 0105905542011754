"""Loads and unloads without end leave nothing behind in the front."""

import asyncio
import collections
import gc

from tests.supervisor.roster.conftest import MakeRig
from tests.supervisor.roster.rig import Rig

WARM_UP, N_CYCLES = 120, 120
"""The warm-up fills records of bounded length. The loop keeps up to 100 cancelled timers."""


async def test_cycles_of_load_and_unload_leave_no_object_and_no_task(make: MakeRig) -> None:
    rig = make()
    await _cycles(rig, WARM_UP)
    before, n_tasks = _objects(rig), len(asyncio.all_tasks())
    await _cycles(rig, N_CYCLES)
    more = _objects(rig) - before
    assert {name: n for name, n in more.items() if n >= N_CYCLES} == {}
    assert len(asyncio.all_tasks()) == n_tasks
    assert rig.n_loads == {"a": WARM_UP + N_CYCLES}


async def _cycles(rig: Rig, times: int) -> None:
    for _ in range(times):
        rig.want("a")
        await rig.until_state("a", "ready")
        rig.want("a", 0)
        await rig.roster.unload("a")
        await rig.until_state("a", "unloaded")
        rig.fleet.edge.log.clear()


def _objects(rig: Rig) -> "collections.Counter[str]":
    """The living objects that the collector knows, by class, without the machine's own record."""
    edge = rig.fleet.edge
    edge.links[:] = [edge.links[-1]] * len(edge.links)
    edge.booted[:] = [edge.booted[-1]] * len(edge.booted)
    edge.processes[:] = [edge.processes[-1]] * len(edge.processes)
    gc.collect()
    return collections.Counter(str(type(one)) for one in gc.get_objects())
