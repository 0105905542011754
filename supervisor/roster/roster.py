"""The loop that keeps the right models in memory: looks, decides, acts, and looks again.

Level-triggered: each look compares what is now with what the residency was told, so a poke that
comes twice or late does no harm.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gpufc.config import Config, ModelConfig
from gpufc.errors import EngineUnavailable, Overloaded
from gpufc.ids import Epoch
from supervisor.dispatch.usage import Usage
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.group import Absence, Group
from supervisor.fleet.names import served_name
from supervisor.fleet.recycling import anonymous_bytes
from supervisor.residency.memory import HOST, Free
from supervisor.residency.port import (
    Action,
    Close,
    Evict,
    Load,
    Placement,
    Refuse,
    Reopen,
    Rules,
    Terms,
    Wait,
)
from supervisor.residency.residency import Residency
from supervisor.roster.needs import Needs, placed, taken
from supervisor.roster.resident import Resident
from supervisor.roster.waiting import of_wait

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Time between two looks while anything waits, loads or leaves."""

QUIET_LOOK_S = 30.0
"""Time between two looks otherwise."""

AGAIN_S = 0.5
"""From an unload that a replacement keeps from happening to the next attempt."""

KEEP_ALIVE_S = 300.0
"""After so long without requests a model is unloaded, unless it is the only one."""


class DemandPort(Protocol):
    """The part of dispatch that the roster uses (`supervisor.dispatch.demand.Demand`)."""

    changed: Callable[[str | None], None]

    def usage(self, model: str) -> Usage: ...
    def open(self, model: str, epoch: Epoch, *, is_open: bool) -> None: ...
    def refuse(self, model: str, error: EngineUnavailable) -> None: ...
    def forget(self, model: str) -> None: ...


class Roster:
    """Owns which places of the fleet have a worker. One for a front, in the event loop.

    Invariants: each worker of the fleet is one tenant of the residency. At most one load is coming
    up, since each fits its cache to the memory that is free.
    """

    def __init__(
        self,
        fleet: Fleet,
        demand: DemandPort,
        config: Config,
        needs: Needs,
        free: Callable[[], Free],
        *,
        clock: Callable[[], float] = time.monotonic,
        learnt: Callable[[], None] = lambda: None,
    ) -> None:
        """`learnt` is called when a load has taught something that is worth keeping."""
        self.residency = Residency(_rules(config, free()))
        self.waits: dict[str, Wait] = {}
        """Why each model that requests wait for is not there yet, by the last decision."""
        self._fleet = fleet
        self._demand = demand
        self._config = config
        self._needs = needs
        self._free = free
        self._clock = clock
        self._learnt = learnt
        self._residents: dict[int, Resident] = {}
        self._terms: dict[str, Terms] = {}
        self._keep_alive: dict[str, float | None] = {}
        """What a request has asked for, until the model is unloaded."""
        self._hints: set[str] = set()
        self._used: set[str] = set()
        self._to_start: deque[tuple[Load, Group]] = deque()
        self._changed = asyncio.Event()
        self._looked = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        demand.changed = self.poke

    # its life

    def start(self) -> None:
        """Take the fleet's workers in, and begin to load the models that are wanted at once.

        The fleet has been started."""
        now = self._clock()
        self.residency.measured(self._free())
        for model in self._fleet.models():
            self.register(model)
        self._adopt(now)
        resident = {one.model for one in self._residents.values()}
        wanted = [n for n in self._config.models if self._config.is_preloaded(n)]
        self._hints = {served_name(self._config.models[name]) for name in wanted} - resident
        self._look()
        self._loop = asyncio.create_task(self._run(), name="roster")

    async def stop(self) -> None:
        """Load and unload nothing more. The fleet ends the workers."""
        tasks = [*filter(None, (self._loop,)), *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def poke(self, model: str | None = None) -> None:
        """Something has changed: look soon. With a model: it is wanted, or has become idle."""
        if model is not None:
            self._used.add(model)
        self._changed.set()

    # what is served

    def register(self, model: str) -> None:
        """A model of the fleet is served, or its configuration, file or known need is another."""
        config = self._fleet.group(model).config
        is_only = len(self._config.models) == 1 and self._is_configured(model)
        kept = self._keep_alive.get(model, _keep_alive(config, is_only=is_only))
        terms = Terms(
            placements=self._needs.placements(config, self._devices()),
            keep_alive_s=None if kept is None or kept < 0 else kept,
            pinned=config.pinned,
            replicas=self._fleet.group(model).n_replicas,
            load_s=self._needs.load_s(config),
        )
        if terms != self._terms.get(model):
            self._terms[model] = terms
            self.residency.register(model, terms)

    def _is_configured(self, model: str) -> bool:
        return any(served_name(one) == model for one in self._config.models.values())

    def _devices(self) -> tuple[str, ...]:
        return tuple(self._free_now().devices)

    # requests of clients and operators

    def keep_alive(self, model: str, seconds: float | None) -> None:
        """A request asks that its model stay for so long after its end; negative: for ever; 0: it
        goes when it is idle; None changes nothing."""
        if seconds is not None and not self._fleet.group(model).config.pinned:
            self._keep_alive[model] = seconds
            self.register(model)
            self.poke(model)

    def hint(self, model: str) -> None:
        """Load a model, if it is not there: a request of it will come."""
        self._hints.add(model)
        self.poke()

    async def load(self, model: str) -> None:
        """Load a model. Returns when it is ready. Raises `EngineUnavailable`."""
        self.residency.forgive(model)
        self.hint(model)
        group = self._fleet.group(model)
        while not group.has_worker:
            await self._next_look()
            if model not in self._hints and not group.has_worker:
                condition = group.condition()
                raise EngineUnavailable(
                    f"{model} cannot be loaded: {condition.detail}",
                    retry_after_s=max(1.0, condition.retry_after_s),
                )

    async def unload(self, model: str) -> None:
        """Unload a model as soon as it is idle. Returns when its processes have ended."""
        self._hints.discard(model)
        self.residency.unload(model, self._clock())
        self.poke()
        while any(one.model == model for one in self._residents.values()):
            await self._next_look()

    async def _next_look(self) -> None:
        await self._looked.wait()

    # the loop

    async def _run(self) -> None:
        while True:
            now = self._clock()
            pause_s = LOOK_S if self._is_moving() else QUIET_LOOK_S
            wake_at = self.residency.wake_at(now)
            if wake_at is not None:
                pause_s = min(pause_s, max(0.0, wake_at - now))
            try:
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                self._look()
            except Exception:  # the boundary: what is in memory goes on serving
                logger.exception("roster_look_failed")
                await asyncio.sleep(LOOK_S)

    def _is_moving(self) -> bool:
        """Whether anything waits, loads or leaves."""
        settled = all(one.epoch is not None and not one.is_leaving for one in self._all())
        return bool(self.waits or self._hints or self._to_start) or not settled

    def _look(self) -> None:
        now = self._clock()
        usages = {model: self._demand.usage(model) for model in self._terms}
        for one in self._all():
            self._observe(one, usages.get(one.model, Usage()), now)
        self._used.clear()
        is_wanted = False
        for model, usage in usages.items():
            n_waiting = 0 if usage.has_worker else usage.n_waiting
            n_waiting += model in self._hints
            self.residency.demand(model, n_waiting, now)
            is_wanted |= bool(n_waiting)
        if is_wanted or self._is_moving():
            self.residency.measured(self._free_now())
        self.waits = {}
        refused: dict[str, Refuse] = {}
        for action in self.residency.decide(now):
            self._act(action, now, refused)
        self._start_next()
        self._publish(now, refused)
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()

    def _all(self) -> list[Resident]:
        return list(self._residents.values())

    def _free_now(self) -> Free:
        return self._free()

    # facts

    def _observe(self, one: Resident, usage: Usage, now: float) -> None:
        """Tell the residency what a worker does that it does not know yet."""
        if one.is_leaving:
            return
        runner, worker = one.place.runner, one.place.runner.worker
        if runner.has_failed and not self._stays_failed(one.model):
            self._failed(one, now)
            return
        is_replaced = worker is not None and worker.epoch != one.epoch
        if one.epoch is not None and (is_replaced or worker is None) and not one.place.is_busy:
            self.residency.restarting(one.no, now)
            one.epoch, one.n_open = None, 0
        if worker is not None and one.epoch is None:
            self._loaded(one, now)
        n_open = one.n_open_now(usage)
        if n_open != one.n_open or one.model in self._used:
            one.n_open = n_open
            self.residency.used(one.no, n_open, now)

    def _stays_failed(self, model: str) -> bool:
        """Whether a failed model waits for its operator: the only one, as nothing else would."""
        return len(self._terms) == 1 and self._is_configured(model)

    def _loaded(self, one: Resident, now: float) -> None:
        row, config = one.place.runner.status(), one.place.spec.config
        if row.facts is None or row.pid is None:
            return
        one.epoch = row.epoch
        devices = [name for name in self._devices() if config.n_gpu_layers]
        held = taken(row.facts, config, anonymous_bytes(row.pid) or 0, devices)
        self.residency.loaded(one.no, held, now)
        if one.since is not None:
            key = self._needs.held(config)
            self._needs.measured.loaded(key, row.facts.fingerprint, held, now - one.since)
            one.since = None
            self._learnt()
        self.register(one.model)
        self._hints.discard(one.model)
        if one.is_closed:
            self._demand.open(one.model, row.epoch, is_open=False)

    def _failed(self, one: Resident, now: float) -> None:
        runner = one.place.runner
        last = runner.status().last_exit
        reason = (last.detail or str(last)) if last is not None else "it has failed"
        if one.epoch is not None:
            self.residency.restarting(one.no, now)
        lacked = bool(runner.shortage.needed_bytes)
        self.residency.load_failed(one.no, reason, now, lacked_memory=lacked)
        logger.warning("model_not_loaded model=%s: %s", one.model, reason)
        self._hints.discard(one.model)
        self._leave(one)

    # actions

    def _act(self, action: Action, now: float, refused: dict[str, Refuse]) -> None:
        match action:
            case Load():
                self._to_start.append((action, self._fleet.group(action.model)))
            case Evict():
                logger.info("unloading model=%s reason=%s", action.model, action.reason)
                one = self._residents[action.tenant]
                self._keep_alive.pop(action.model, None)
                self._leave(one)
            case Close() | Reopen():
                self._open(self._residents[action.tenant], is_open=isinstance(action, Reopen))
            case Wait():
                self.waits[action.model] = action
            case Refuse():
                refused[action.model] = action
                self._hints.discard(action.model)

    def _start_next(self) -> None:
        """Begin the next load, unless one is coming up."""
        while self._to_start and not self._is_loading():
            load, group = self._to_start.popleft()
            config = placed(group.config, load.placement.name)
            place = group.load(config, on_demand=load.model not in self._hints)
            if place is None:
                logger.error("no_place_for_a_load model=%s", load.model)
                self.residency.gone(load.tenant, self._clock())
                continue
            logger.info("loading model=%s placement=%s", load.model, load.placement.name)
            self._residents[load.tenant] = Resident(load.tenant, group, place, self._clock())

    def _is_loading(self) -> bool:
        return any(one.epoch is None and one.place.runner.is_coming_up for one in self._all())

    def _adopt(self, now: float) -> None:
        """Take in the workers that the fleet has begun with."""
        for model in self._fleet.models():
            group = self._fleet.group(model)
            for place in group.places:
                way = self._terms[model].placements[0]
                no = self.residency.adopt(model, way, now)
                self._residents[no] = Resident(no, group, place, now)

    def _open(self, one: Resident, *, is_open: bool) -> None:
        one.is_closed = not is_open
        if one.epoch is not None:
            self._demand.open(one.model, one.epoch, is_open=is_open)

    def _leave(self, one: Resident) -> None:
        one.is_leaving = True
        self._open(one, is_open=False)
        task = asyncio.create_task(self._end(one), name=f"unload {one.place.spec.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, one: Resident) -> None:
        while True:
            try:
                await one.group.unload(one.place)
                break
            except Overloaded:  # an operator replaces it just now
                await asyncio.sleep(AGAIN_S)
        del self._residents[one.no]
        self.residency.gone(one.no, self._clock())
        self.poke()

    # what clients are told

    def _publish(self, now: float, refused: dict[str, Refuse]) -> None:
        """Put the reasons on the models that have no worker, and end the requests that wait in
        vain."""
        for model in self._terms:
            group = self._fleet.group(model)
            if not group.places:
                group.absence = self._absence(model, now, refused.get(model))
        for model, action in refused.items():
            self._demand.refuse(model, _refusal(model, action))

    def _absence(self, model: str, now: float, refused: Refuse | None) -> Absence | None:
        failure = self.residency.failure(model, now)
        if failure is not None:
            return Absence(f"it could not be loaded: {failure[0]}", now + failure[1], True)
        if refused is not None and refused.retry_after_s is None:
            return Absence(f"it does not fit: {refused.reason}", is_failure=True)
        wait = self.waits.get(model)
        if wait is not None:
            return Absence(of_wait(wait))
        is_queued = any(load.model == model for load, _ in self._to_start)
        return Absence("waiting for another load to end") if is_queued else None


def _refusal(model: str, action: Refuse) -> EngineUnavailable:
    return EngineUnavailable(
        f"{model} cannot be loaded: {action.reason}",
        retry_after_s=60.0 if action.retry_after_s is None else max(1.0, action.retry_after_s),
    )


def _keep_alive(config: ModelConfig, *, is_only: bool) -> float | None:
    if config.keep_alive_s is not None:
        return config.keep_alive_s
    return None if is_only else KEEP_ALIVE_S


def _rules(config: Config, free: Free) -> Rules:
    limits: dict[str, int] = {}
    if config.fleet.memory_limit_bytes is not None:
        limits[HOST] = config.fleet.memory_limit_bytes
    if config.fleet.device_memory_limit_bytes is not None:
        limits |= dict.fromkeys(free.devices, config.fleet.device_memory_limit_bytes)
    return Rules(limit_bytes=limits)
