"""Carries out the residency's decisions on the fleet's workers: loads, closes and unloads them."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any

from gpufc.errors import Overloaded
from supervisor.fleet.place import Place
from supervisor.residency.port import Load, TenantNo
from supervisor.roster.needs import WHOLE, placed
from supervisor.roster.port import DemandPort, FleetPort
from supervisor.roster.resident import Resident

logger = logging.getLogger(__name__)

AGAIN_S = 0.5
"""From an unload that a replacement keeps from happening to the next attempt."""


class Workers:
    """The tenants of the memory. In the event loop.

    Invariant: at most one load is coming up, since each worker fits its cache to the memory that is
    free.
    """

    def __init__(
        self,
        fleet: FleetPort,
        demand: DemandPort,
        clock: Callable[[], float],
        gone: Callable[[TenantNo], None],
    ) -> None:
        """`gone` is called when a worker's process has ended, or could not be started."""
        self.n_loads: Counter[str] = Counter()
        """Loads begun, by model."""
        self._fleet = fleet
        self._demand = demand
        self._clock = clock
        self._gone = gone
        self._residents: dict[TenantNo, Resident] = {}
        self._to_start: deque[tuple[Load, bool]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    # questions

    def all(self) -> list[Resident]:
        return list(self._residents.values())

    def of(self, model: str) -> list[Resident]:
        """Those of one model."""
        return [one for one in self._residents.values() if one.model == model]

    def __contains__(self, one: Resident) -> bool:
        """Whether it still has a process."""
        return one.no in self._residents

    def __getitem__(self, tenant: TenantNo) -> Resident:
        return self._residents[tenant]

    def is_queued(self, model: str) -> bool:
        """Whether a load of the model waits for another one to end."""
        return any(load.model == model for load, _ in self._to_start)

    @property
    def is_moving(self) -> bool:
        """Whether any load or unload is going on."""
        return bool(self._to_start) or any(
            one.epoch is None or one.is_leaving for one in self._residents.values()
        )

    # actions

    def adopt(self, tenant: TenantNo, model: str, place: Place) -> None:
        """Take in a worker that the fleet has begun with."""
        group = self._fleet.group(model)
        since = None if place.has_worker else self._clock()
        self._residents[tenant] = Resident(tenant, group, place, WHOLE, since)

    def load(self, load: Load, *, on_demand: bool) -> None:
        """Load a worker once no other one is coming up. `start_next` begins it."""
        self._to_start.append((load, on_demand))

    def start_next(self) -> None:
        """Begin the next load, unless one is coming up."""
        while self._to_start and not self._is_loading():
            load, on_demand = self._to_start.popleft()
            if load.model not in self._fleet.models():  # its file has vanished meanwhile
                self._gone(load.tenant)
                continue
            self._fleet.make_room(load.placement.need.host_bytes)
            group = self._fleet.group(load.model)
            place = group.load(placed(group.next_config, load.placement.name), on_demand=on_demand)
            if place is None:
                logger.error("no_place_for_a_load model=%s", load.model)
                self._gone(load.tenant)
                continue
            if on_demand:
                self._fleet.loads_for_a_request()
            logger.info("loading model=%s placement=%s", load.model, load.placement.name)
            self.n_loads[load.model] += 1
            way = load.placement.name
            self._residents[load.tenant] = Resident(load.tenant, group, place, way, self._clock())

    def _is_loading(self) -> bool:
        """A worker that waits for its restart does not count: its pause may be long. One on another
        machine takes no memory here."""
        return any(
            one.epoch is None and not one.is_leaving and one.place.is_loading
            for one in self.all()
            if not one.place.spec.is_remote
        )

    def open(self, one: Resident, *, is_open: bool) -> None:
        """Give a worker new sequences, or none."""
        one.is_closed = not is_open
        if one.epoch is not None:
            self._demand.open(one.model, one.epoch, is_open=is_open)

    def leave(self, one: Resident) -> None:
        """Begin to end a worker. `gone` follows."""
        one.is_leaving = True
        self.open(one, is_open=False)
        self.own(self._end(one), f"unload {one.place.spec.name}")

    def own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Let a work go on until it ends, or until `stop`."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Break off what is going on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, one: Resident) -> None:
        while True:
            try:
                await one.group.unload(one.place)
                break
            except Overloaded:  # an operator replaces it just now
                await asyncio.sleep(AGAIN_S)
        del self._residents[one.no]
        self._gone(one.no)
