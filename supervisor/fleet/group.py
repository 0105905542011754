"""One served model: a place for each replica, each of which may be in memory or not.

`supervisor/roster` decides which places have a worker; the fleet starts and stops all of them.
"""

import asyncio
import itertools
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from gpufc.config import ModelConfig
from gpufc.errors import Overloaded
from supervisor.fleet import events as ev
from supervisor.fleet.condition import LONGEST_S, of_group
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.inheritance import HeldWorker
from supervisor.fleet.place import BUSY_S, Place, PlaceState
from supervisor.fleet.port import Condition, ConditionStatus
from supervisor.fleet.replacer import Replacer
from supervisor.fleet.worker import WorkerSpec

MakeReplacer = Callable[[WorkerSpec], Replacer]
Upkeep = Callable[[Replacer], Iterable[Coroutine[Any, Any, None]]]
"""The coroutines that look after a place while it has a worker."""

UNLOADED = Condition(ConditionStatus.OK, "unloaded; the next request loads it", 0.0)


AGAIN_S = 10.0
"""When a model that a request has loaded in vain may be asked for again: its first cool-down."""


class Absence(Struct, frozen=True):
    """What keeps a model without a worker from being loaded at once. `until` is monotonic seconds:
    requests before then are refused if `is_failure`, else they wait."""

    detail: str
    until: float = math.inf
    is_failure: bool = False


class Group:
    """The places of one served model. In the event loop; `close` ends everything in it.

    Invariant: an ABSENT place has no process. Places are made by the first load and kept, so that
    counters and a swapped model outlive an unload.
    """

    def __init__(
        self,
        name: str,
        model: str,
        specs: Sequence[WorkerSpec],
        make: MakeReplacer,
        upkeep: Upkeep,
        clock: Callable[[], float],
    ) -> None:
        """`name` is the beginning of its workers' names, `model` the served name. There is one of
        `specs` for each replica."""
        self.name = name
        self.model = model
        self.absence: Absence | None = None
        """Set by the roster, for a model without a worker."""
        self._replacers: list[Replacer] = []
        self._specs = tuple(specs)
        self._make = make
        self._upkeep = upkeep
        self._clock = clock
        self._is_on_demand = False
        self._tasks: dict[Place, list[asyncio.Task[None]]] = {}

    # questions

    @property
    def replacers(self) -> list[Replacer]:
        """Those of the places that have or get a worker."""
        return [one for one in self._replacers if one.place.state is not PlaceState.ABSENT]

    @property
    def staying(self) -> list[Replacer]:
        """Those of the places whose worker does not leave."""
        return [one for one in self.replacers if one.place.state is not PlaceState.LEAVING]

    @property
    def places(self) -> list[Place]:
        """Those that have or get a worker, or whose worker leaves."""
        return [replacer.place for replacer in self.replacers]

    @property
    def config(self) -> ModelConfig:
        """The section of its first place, as the last swap has left it."""
        return (self._replacers[0].place.spec if self._replacers else self._specs[0]).config

    @property
    def next_config(self) -> ModelConfig:
        """The section of the place that the next load takes; of the first one if none is free."""
        if not self._replacers:
            return self._specs[0].config
        places = [replacer.place for replacer in self._replacers]
        free = [one for one in places if one.state is PlaceState.ABSENT]
        return (free or places)[0].spec.config

    @property
    def next_spec(self) -> WorkerSpec | None:
        """That of the worker that the next load starts; None if no place is free."""
        if not self._replacers:
            return self._specs[0]
        places = [replacer.place for replacer in self._replacers]
        return next((one.spec for one in places if one.state is PlaceState.ABSENT), None)

    @property
    def n_replicas(self) -> int:
        return len(self._specs)

    @property
    def has_worker(self) -> bool:
        """Whether any place has a ready worker."""
        return any(place.has_worker for place in self.places)

    def condition(self) -> Condition:
        """Whether a token could be produced now, or after a load that the request begins."""
        conditions = self._conditions()
        first = next(conditions, None)
        if first is not None:
            found = of_group(itertools.chain((first,), conditions))
            if self._is_on_demand and found.status is ConditionStatus.FAILED:
                return Condition(found.status, found.detail, AGAIN_S)
            return found
        absence = self.absence
        wait_s = absence.until - self._clock() if absence is not None else 0.0
        if absence is None or wait_s <= 0:
            return UNLOADED
        status = ConditionStatus.FAILED if absence.is_failure else ConditionStatus.LOADING
        return Condition(status, absence.detail, min(wait_s, LONGEST_S))

    def _conditions(self) -> Iterator[Condition]:
        """Of the staying places, one after the other: a request mostly needs the first one only."""
        for replacer in self._replacers:
            if replacer.place.state not in {PlaceState.ABSENT, PlaceState.LEAVING}:
                yield replacer.place.condition()

    @property
    def is_expected(self) -> bool:
        """Whether a token of it could be expected now: not of a model that is unloaded, or that a
        request has just begun to load."""
        if not self.staying:
            return False
        loads = self.condition().status is ConditionStatus.LOADING
        return not (self._is_on_demand and loads)

    # its life

    def adopt(self, workers: Sequence[HeldWorker]) -> None:
        """Begin with the running workers of another front. `start` continues."""
        held = {worker.spec.name: worker for worker in workers}
        configured = {spec.name: spec for spec in self._specs}
        running = {name: worker.of_place for name, worker in held.items()}
        self._specs = tuple((configured | running).values())
        for replacer in self._made():
            place = replacer.place
            worker = held.get(place.spec.name)
            if worker is None:
                continue
            place.runner.post(ev.Adopted())
            if worker.last_exit is not None:
                place.runner.post(ev.TookOver(worker.restarts, worker.last_exit))
            self._start(replacer, worker.spec.config)

    def load(self, config: ModelConfig | None = None, *, on_demand: bool = False) -> Place | None:
        """Begin to start a worker in the first place without one. None if all have one.

        `config` is for this load only, instead of the place's own."""
        free = (one for one in self._made() if one.place.state is PlaceState.ABSENT)
        replacer = next(free, None)
        if replacer is None:
            return None
        if not self.places:
            self._is_on_demand = on_demand
        self.absence = None
        self._start(replacer, config, on_demand=on_demand)
        return replacer.place

    def respecify(self, change: Callable[[WorkerSpec], WorkerSpec]) -> None:
        """Give the places without a worker, and those whose worker leaves, other specs."""
        self._specs = tuple(map(change, self._specs))
        for replacer in self._replacers:
            if replacer.place.state in {PlaceState.ABSENT, PlaceState.LEAVING}:
                replacer.place.respecify(change(replacer.place.spec))

    async def unload(self, place: Place) -> None:
        """End a place's worker. Returns when its process has ended. Streams that are left wait for
        another worker.

        Raises `Overloaded` while the worker is being replaced.
        """
        _require_settled(place)
        await _ended(self._tasks.pop(place, []))
        _require_settled(place)  # a replacement may have begun meanwhile
        await place.unload(Reason.UNLOADED)

    def request_stop(self, *, now: bool) -> None:
        """Begin to end everything, for good."""
        for place in self.places:
            place.request_stop(now=now)

    async def end_upkeep(self) -> None:
        """End the upkeep. The workers go on."""
        tasks, self._tasks = self._tasks, {}
        await _ended([task for some in tasks.values() for task in some])

    async def close(self) -> None:
        """After the processes have ended, or cannot be ended."""
        await self.end_upkeep()
        for replacer in self._replacers:
            await replacer.place.close()

    def _made(self) -> list[Replacer]:
        if not self._replacers:
            self._replacers = [self._make(spec) for spec in self._specs]
        return self._replacers

    def _start(
        self, replacer: Replacer, config: ModelConfig | None = None, *, on_demand: bool = False
    ) -> None:
        replacer.place.start(config, on_demand=on_demand)
        works = self._upkeep(replacer)
        self._tasks[replacer.place] = [asyncio.create_task(work) for work in works]


def _require_settled(place: Place) -> None:
    if place.is_busy or place.is_retiring:
        raise Overloaded(f"{place.spec.name} is being replaced just now", retry_after_s=BUSY_S)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def of_models(groups: Iterable[Group]) -> Condition:
    """The condition of all models together: the best one of those that a token could be expected
    of. Where all are unloaded on purpose, each can be loaded, so all is well."""
    groups = list(groups)
    expected = [group.condition() for group in groups if group.is_expected]
    if expected:
        return of_group(expected)
    found = [group.condition() for group in groups]
    if any(one.status is ConditionStatus.OK for one in found) or not found:
        return UNLOADED
    failed = all(one.status is ConditionStatus.FAILED for one in found)
    return of_group(found) if failed else UNLOADED
