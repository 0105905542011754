"""A served model's places: loaded, unloaded, and what its condition says meanwhile."""

import asyncio
import errno
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from gpufc.config import Config, FleetConfig, ModelConfig, Standby
from gpufc.errors import Overloaded
from gpufc.ids import Epoch, WorkerName
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.group import Absence, Group, of_models
from supervisor.fleet.inheritance import take_stock
from supervisor.fleet.ladder import Timings
from supervisor.fleet.maker import MAX_NAME_CHARS, Maker
from supervisor.fleet.place import PlaceState
from supervisor.fleet.port import ConditionStatus
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.watchdog import LIMITS
from supervisor.fleet.worker import Hooks, WorkerSpec
from tests.supervisor.fleet.conftest import Recorder
from tests.supervisor.fleet.fake_edge import KILLED
from tests.supervisor.fleet.scripted import BROKEN, Script, Scripted

LIMIT = 1000
CONFIG = Config(
    fleet=FleetConfig(standby=Standby.NONE, recycle_growth_bytes=0, device_memory_limit_bytes=LIMIT)
)


class Made:
    """Groups over scripted workers, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.edge, self.listener = Scripted(), Recorder()
        self.maker = Maker(
            CONFIG,
            self.edge,
            listener=lambda: self.listener,
            hooks=Hooks(),
            timings=Timings(),
            watch=LIMITS,
            rng=random.Random(1),
            clock=lambda: self.now,
            lines=self.lines,
        )
        self.groups: list[Group] = []

    def lines(self) -> list[WorkerRunner]:
        places = [place for group in self.groups for place in group.places]
        return [runner for place in places for runner in place.runners()]

    def limits(self) -> list[int | None]:
        """What each process that was started may take of a GPU."""
        return [boot.device_limit_bytes for boot in self.edge.booted]

    def group(self, name: str = "m", **config: Any) -> Group:
        self.groups.append(
            self.maker.group(name, name, ModelConfig(model_path=f"/{name}", **config))
        )
        return self.groups[-1]

    async def loaded(self, name: str = "m", *, on_demand: bool = True, **config: Any) -> Group:
        group = self.group(name, **config)
        group.load(on_demand=on_demand)
        await self.until(lambda: group.has_worker)
        return group

    async def until(self, holds: Callable[[], object]) -> None:
        await self.listener.until(holds, 10.0)


@pytest.fixture
async def made() -> AsyncIterator[Made]:
    found = Made()
    yield found
    for group in found.groups:
        group.request_stop(now=True)
        for place in group.places:
            await place.wait_stopped()
        await group.close()
    await found.maker.kept.close()


async def test_a_model_without_a_worker_accepts_requests(made: Made) -> None:
    group = made.group()
    assert group.condition().status is ConditionStatus.OK
    assert "unloaded" in group.condition().detail
    assert group.places == []


async def test_an_absence_says_what_a_model_waits_for_until_its_time(made: Made) -> None:
    group = made.group()
    group.absence = Absence("waiting for memory")
    assert group.condition().status is ConditionStatus.LOADING
    group.absence = Absence("it is broken", until=made.now + 20.0, is_failure=True)
    condition = group.condition()
    assert (condition.status, condition.retry_after_s) == (ConditionStatus.FAILED, 20.0)
    made.now += 21.0
    assert group.condition().status is ConditionStatus.OK


@pytest.mark.parametrize("on_demand", [True, False])
async def test_a_worker_is_awaited_by_a_request_or_by_those_of_the_worker_before(
    made: Made, on_demand: bool
) -> None:
    await made.loaded(on_demand=on_demand)
    made.edge.process_of(1).exit(KILLED)
    await made.until(lambda: len(made.edge.booted) == 2)
    assert [boot.is_awaited for boot in made.edge.booted] == [on_demand, True]


async def test_a_worker_is_awaited_after_a_start_that_the_system_has_refused(made: Made) -> None:
    group = await made.loaded(on_demand=False)
    made.edge.refuse = OSError(errno.EMFILE, "Too many open files")
    made.edge.process_of(1).exit(KILLED)
    await made.until(lambda: "the system refuses" in group.condition().detail)
    made.edge.refuse = None
    await made.until(lambda: len(made.edge.booted) == 2)
    assert [boot.is_awaited for boot in made.edge.booted] == [False, True]


async def test_an_unloaded_worker_is_asked_to_end_and_is_no_restart(made: Made) -> None:
    group = await made.loaded()
    (place,) = group.places
    await group.unload(place)
    assert made.edge.log == ["export 1", "shutdown 1"]
    assert (group.places, place.state) == ([], PlaceState.ABSENT)
    assert [lost.reason for lost in made.listener.lost] == [Reason.UNLOADED]
    group.load(on_demand=True)
    assert group.condition().status is ConditionStatus.LOADING
    await made.until(lambda: group.has_worker)
    assert place.runner.status().restarts == 0
    assert made.maker.restarts_total == {}


async def test_an_engine_that_was_proven_needs_no_trial_after_an_unload(made: Made) -> None:
    group = await made.loaded()
    await group.unload(group.places[0])
    group.load()
    await made.until(lambda: group.has_worker)
    assert made.listener.proven == [1]


async def test_a_crash_after_a_load_is_a_restart(made: Made) -> None:
    group = await made.loaded()
    await group.unload(group.places[0])
    group.load(on_demand=True)
    await made.until(lambda: group.has_worker)
    made.edge.process_of(2).exit(KILLED)
    await made.until(lambda: len(made.listener.ready) == 3)
    assert group.places[0].runner.status().restarts == 1


async def test_replicas_fill_one_place_after_another(made: Made) -> None:
    group = made.group(replicas=2)
    first, second, third = (group.load() for _ in range(3))
    assert (first is not second, third) == (True, None)
    await made.until(lambda: len(made.listener.ready) == 2)
    assert {place.spec.name for place in group.places} == {"m-0", "m-1"}
    assert first is not None
    await group.unload(first)
    assert [place.spec.name for place in group.places] == ["m-1"]


async def test_each_replica_has_its_own_devices(made: Made) -> None:
    group = made.group(replicas=3, devices="CUDA0;CUDA1, CUDA2")
    wanted = []
    while group.load() is not None:
        wanted.append(group.next_config.devices)
    await made.until(lambda: len(made.listener.ready) == 3)
    booted = sorted(str(one.model.devices) for one in made.edge.booted)
    assert booted == ["CUDA0", "CUDA0", "CUDA1, CUDA2"]
    assert wanted == ["CUDA1, CUDA2", "CUDA0", "CUDA0"]


async def test_a_replica_that_is_loaded_again_has_its_own_devices(made: Made) -> None:
    group = made.group(replicas=2, devices="CUDA0;CUDA1")
    second = [group.load(), group.load()][1]
    await made.until(lambda: len(made.listener.ready) == 2)
    assert second is not None
    await group.unload(second)
    assert group.next_config.devices == "CUDA1"
    assert group.load() is second
    assert made.edge.booted[-1].model.devices == "CUDA1"


async def test_each_worker_gets_what_the_others_have_left_of_its_gpus(made: Made) -> None:
    made.edge.scripts["/one"] = Script(bytes_by_device={"CUDA0": 600, "CUDA1": 100})
    one = await made.loaded("one")
    await made.loaded("two", devices="CUDA0")
    await made.loaded("three", devices="CUDA1")
    assert made.limits() == [LIMIT, 400, 900]
    (place,) = one.places
    await one.unload(place)
    await made.loaded("four", devices="CUDA0")
    assert made.limits()[-1] == LIMIT


async def test_a_worker_that_is_restarted_does_not_count_itself(made: Made) -> None:
    made.edge.scripts["/one"] = Script(bytes_by_device={"CUDA0": 600})
    made.edge.scripts["/two"] = Script(bytes_by_device={"CUDA0": 300})
    await made.loaded("one", devices="CUDA0")
    await made.loaded("two", devices="CUDA0")
    made.edge.process_of(1).exit(KILLED)
    await made.until(lambda: len(made.listener.ready) == 3)
    assert made.limits() == [LIMIT, 400, 700]


async def test_a_worker_that_loads_again_counts_with_what_it_had(made: Made) -> None:
    made.edge.scripts["/one"] = Script(bytes_by_device={"CUDA0": 600})
    one = await made.loaded("one", devices="CUDA0")
    made.edge.scripts["/one"] = Script(is_slow=True)
    made.edge.process_of(1).exit(KILLED)
    await made.until(lambda: len(made.edge.booted) == 2)
    assert not one.has_worker
    await made.loaded("two", devices="CUDA0")
    assert made.limits() == [LIMIT, LIMIT, 400]


def test_the_limit_is_for_workers_of_this_machine() -> None:
    for is_remote, limit in ((False, 5), (True, None)):
        spec = WorkerSpec(
            WorkerName("m-0"), "m", ModelConfig(), 1, "info", is_remote=is_remote, within=("/m",)
        )
        assert spec.boot(Epoch(1), "", "", 5).device_limit_bytes == limit


async def test_a_worker_that_is_being_replaced_is_not_unloaded(made: Made) -> None:
    group = await made.loaded()
    (place,) = group.places
    with place.begin_replacement(), pytest.raises(Overloaded, match="being replaced"):
        await group.unload(place)
    assert group.has_worker


async def test_a_config_for_one_load_is_not_kept(made: Made) -> None:
    group = made.group(n_ctx=2048)
    least = ModelConfig(model_path="/m", n_ctx=2048, kv_cells=2048)
    place = group.load(least)
    await made.until(lambda: group.has_worker)
    assert made.edge.booted[-1].model.kv_cells == 2048
    assert place is not None
    assert (group.config.kv_cells, place.spec.config.kv_cells) == (None, None)
    await group.unload(place)
    group.load()
    await made.until(lambda: group.has_worker)
    assert made.edge.booted[-1].model.kv_cells is None


async def test_a_config_for_one_load_is_not_kept_by_the_next_front(made: Made) -> None:
    group = made.group(n_ctx=512)
    place = group.load(msgspec.structs.replace(group.config, n_ctx=256))
    assert place is not None
    await made.until(lambda: group.has_worker)
    held = take_stock(group.places, {}, next_epoch=Epoch(9), restarts={}).workers
    made.maker.forget(group)  # the successor has names of its own
    successor = made.group(n_ctx=1024)
    successor.adopt(held)
    assert successor.config.n_ctx == 512
    assert successor.places[0].runner.spec.config.n_ctx == 256


async def test_all_unloaded_is_well_and_so_is_a_load_on_demand(made: Made) -> None:
    one, two = made.group("one"), made.group("two")
    assert of_models([one, two]).status is ConditionStatus.OK
    made.edge.scripts["/one"] = Script(is_slow=True)
    one.load(on_demand=True)
    await made.until(lambda: made.edge.booted)
    assert one.condition().status is ConditionStatus.LOADING
    assert of_models([one, two]).status is ConditionStatus.OK
    assert of_models([]).status is ConditionStatus.OK


async def test_a_preloaded_model_has_to_be_there(made: Made) -> None:
    one, two = made.group("one"), made.group("two")
    made.edge.scripts["/one"] = Script(is_slow=True)
    one.load()
    await made.until(lambda: one.places[0].runner.status().loading_fraction)
    assert of_models([one, two]).status is ConditionStatus.LOADING
    made.edge.finish_load(1)
    await made.until(lambda: one.has_worker)
    assert of_models([one, two]).status is ConditionStatus.OK


async def test_a_dead_worker_counts_although_others_are_unloaded(made: Made) -> None:
    one, two = await made.loaded("one"), made.group("two")
    made.edge.process_of(1).exit(KILLED)
    await made.until(lambda: not one.has_worker)
    assert of_models([one, two]).status is ConditionStatus.RESTARTING


async def test_a_failed_model_does_not_hide_one_that_can_be_loaded(made: Made) -> None:
    one, two = made.group("one"), made.group("two")
    one.absence = Absence("it is broken", is_failure=True)
    assert of_models([one, two]).status is ConditionStatus.OK
    assert of_models([one]).status is ConditionStatus.FAILED


async def test_a_load_in_vain_may_be_asked_for_again_soon(made: Made) -> None:
    group = made.group()
    made.edge.scripts["/m"] = Script(loads=(BROKEN,))
    group.load(on_demand=True)
    await made.until(lambda: group.condition().status is ConditionStatus.FAILED)
    assert group.condition().retry_after_s == 10.0


async def test_workers_have_names_of_their_own_that_files_may_have(made: Made) -> None:
    names = []
    for name in ("org/model", "org_model", "..", "x" * 300):
        group = made.group(name)
        group.load()
        names.append(str(group.places[0].spec.name))
    assert names[:2] == ["org_model-0", "org_model_2-0"]
    assert names[2] == "model-0"
    assert len(names[3]) == MAX_NAME_CHARS + 2
    await asyncio.sleep(0)
