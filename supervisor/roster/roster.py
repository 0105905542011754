"""The loop that keeps the right models in memory: looks, decides, acts, and looks again.

Level-triggered: each look compares what is now with what the residency was told, so a poke that
comes twice or late does no harm.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from gpufc.config import Config
from gpufc.errors import EngineUnavailable
from supervisor.dispatch.usage import Usage
from supervisor.fleet.names import served_name
from supervisor.fleet.port import ConditionStatus, OnReplacement, not_followed
from supervisor.fleet.recycling import anonymous_bytes
from supervisor.residency.memory import Free
from supervisor.residency.port import (
    Action,
    Close,
    Evict,
    Load,
    Refuse,
    Reopen,
    State,
    TenantNo,
    Wait,
)
from supervisor.residency.residency import Residency
from supervisor.roster.needs import Needs
from supervisor.roster.port import DemandPort, FleetPort
from supervisor.roster.progress import end_of, progress_of
from supervisor.roster.resident import Resident
from supervisor.roster.scales import Scales
from supervisor.roster.served import Served
from supervisor.roster.terms import rules_of
from supervisor.roster.waiting import absence_of, refusal
from supervisor.roster.workers import Workers

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Time between two looks while anything waits, loads or leaves."""

LEAST_S = 0.005
"""Time between two looks, however often something changes."""

QUIET_LOOK_S = 30.0
"""Time between two looks otherwise."""


class Roster:
    """Owns which places of the fleet have a worker. One for a front, in the event loop.

    Invariant: each worker of the fleet is one tenant of the residency.
    """

    def __init__(
        self,
        fleet: FleetPort,
        demand: DemandPort,
        config: Config,
        needs: Needs,
        free: Callable[[], Free],
        *,
        clock: Callable[[], float] = time.monotonic,
        measure: Callable[[int], int | None] = anonymous_bytes,
        learnt: Callable[[], None] = lambda: None,
    ) -> None:
        """`measure` gives the own memory of a process. `learnt` is called when a load has taught
        something that is worth keeping."""
        self.residency = Residency(rules_of(config))
        self.waits: dict[str, Wait] = {}
        """Why each model that requests wait for is not there yet, by the last decision."""
        self._fleet = fleet
        self._demand = demand
        self._config = config
        self._needs = needs
        self._free = free
        self._clock = clock
        self._scales = Scales(measure, free)
        self._learnt = learnt
        self.workers = Workers(fleet, demand, clock, self._gone)
        self.served = Served(fleet, config, needs, free, self.residency)
        self.idle_since: dict[str, float] = {}
        self._hints: set[str] = set()
        self._used: set[str] = set()
        self._unloading: set[str] = set()
        """Models that an operator wants unloaded, and that are busy still."""
        self._forgotten: set[str] = set()
        """Models that are served no more, but may still have a worker."""
        self._changed = asyncio.Event()
        self._looked = asyncio.Event()
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
        resident = {one.model for one in self.workers.all()}
        wanted = [n for n in self._config.models if self._config.is_preloaded(n)]
        self._hints = {served_name(self._config.models[name]) for name in wanted} - resident
        self._look()
        self._loop = asyncio.create_task(self._run(), name="roster")

    async def stop(self) -> None:
        """Load and unload nothing more. The fleet ends the workers."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await self.workers.stop()

    def poke(self, model: str | None = None) -> None:
        """Something has changed: look soon. With a model: it is wanted, or has become idle."""
        if model is not None:
            if self._stays(model):
                return
            self._used.add(model)
        self._changed.set()

    def _stays(self, model: str) -> bool:
        """Whether the use of a model decides nothing: it is the only one, is there and stays. So a
        service of one model pays nothing for its roster."""
        stays = self.served.is_alone(model) and self.served.terms[model].keep_alive_s is None
        is_asked = bool(self._hints or self._unloading)
        return stays and self._fleet.group(model).has_worker and not is_asked

    # what is served

    def register(self, model: str) -> None:
        """A model of the fleet is served, or its configuration, file or known need is another."""
        self.served.register(model)

    def renew(self, model: str) -> None:
        """The model's file is another one: the next load takes it, which comes when it is idle."""
        if model in self.served.terms:
            self.residency.forgive(model)
            self.residency.unload(model, self._clock())
            self.register(model)
            self.poke()

    def forget(self, model: str) -> None:
        """The model's file is gone: it is served no more. Requests that run end as usual."""
        if not self.served.forget(model):
            return
        self._hints.discard(model)
        self._fleet.withdraw(model)
        self._forgotten.add(model)
        self.poke()

    # requests of clients and operators

    def keep_alive(self, model: str, seconds: float | None, *, may_shorten: bool = True) -> None:
        """A request asks that its model stay for so long after its end; negative: for ever; 0: it
        goes when it is idle; None changes nothing. A pinned model and the only one stay anyway.

        Unless it `may_shorten` the time, the model stays as long as it would have at least."""
        if self.served.keep_alive(model, seconds, may_shorten=may_shorten):
            self.poke(model)

    def hint(self, model: str) -> None:
        """Load a model, if it is not there: a request of it will come."""
        self._hints.add(model)
        self.poke()

    async def load(self, model: str, tell: OnReplacement = not_followed) -> None:
        """Load a model. Returns when it is ready. Raises `EngineUnavailable`."""
        group = self._fleet.group(model)
        if not group.has_worker:
            self.residency.forgive(model)
            self.hint(model)
        # a worker may serve before a look has noted it
        while not group.has_worker or self.residency.state(model, self._clock()) is State.LOADING:
            await self.looked()
            tell(progress_of(group))
            condition = group.condition()
            is_over = condition.status is ConditionStatus.FAILED and self._stays_failed(model)
            if (is_over or model not in self._hints) and not group.has_worker:
                self._hints.discard(model)
                raise EngineUnavailable(
                    f"{model} cannot be loaded: {condition.detail}",
                    retry_after_s=max(1.0, condition.retry_after_s),
                )

    async def unload(self, model: str, tell: OnReplacement = not_followed) -> None:
        """Unload a model as soon as it is idle. Returns when the processes that it has now have
        ended: requests may have loaded it again by then."""
        self._hints.discard(model)
        self._unloading.add(model)
        self.residency.unload(model, self._clock())
        mine = self.workers.of(model)
        for one in mine:
            if not one.is_leaving:
                self.workers.open(one, is_open=False)  # requests that come meanwhile wait
        self.poke()
        try:
            while left := [one for one in mine if one in self.workers]:
                tell(end_of(left[0]))
                await self.looked()
        finally:
            self._unloading.discard(model)

    async def looked(self) -> None:
        """Wait for the next look's end."""
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
                await asyncio.sleep(LEAST_S)
            except Exception:  # the boundary: what is in memory goes on serving
                logger.exception("roster_look_failed")
                await asyncio.sleep(LOOK_S)

    def _is_moving(self) -> bool:
        """Whether anything waits, loads or leaves."""
        is_asked = bool(self.waits or self._hints or self._unloading)
        return is_asked or self.workers.is_moving

    def _look(self) -> None:
        now = self._clock()
        usages = {
            model: self._demand.usage(model) for model in (*self.served.terms, *self._forgotten)
        }
        for one in self.workers.all():
            self._observe(one, usages.get(one.model, Usage()), now)
        self._used.clear()
        is_wanted = False
        for model, usage in usages.items():
            if model in self._forgotten:
                continue
            n_waiting = 0 if usage.has_worker else usage.n_waiting
            n_waiting += model in self._hints
            self.residency.demand(model, n_waiting, now)
            is_wanted |= bool(n_waiting)
        if is_wanted or self._is_moving():
            self.residency.measured(self._free())
        self.waits = {}
        refused: dict[str, Refuse] = {}
        for action in self.residency.decide(now):
            self._act(action, now, refused)
        self.workers.start_next()
        self._publish(now, refused)
        self._remove_forgotten()
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()

    # facts

    def _observe(self, one: Resident, usage: Usage, now: float) -> None:
        """Tell the residency what a worker does that it does not know yet."""
        if one.is_leaving or (one.place.is_busy and one.place.runner.has_failed):
            return  # in a replacement of a failed worker its outcome counts
        runner, worker = one.place.runner, one.place.runner.worker
        if runner.has_failed and not self._stays_failed(one.model):
            self._failed(one, now)
            return
        is_replaced = worker is not None and worker.epoch != one.epoch
        if one.epoch is not None and (is_replaced or worker is None) and not one.place.is_busy:
            self.residency.restarting(one.no, now)
            one.epoch, one.n_open, one.is_closed = None, 0, False
        if worker is not None and one.epoch is None:
            self._loaded(one, now)
        is_shut_out = usage.n_waiting and not usage.has_worker and not one.is_closed
        if is_shut_out and one.epoch is not None:
            self.workers.open(one, is_open=True)
        n_open = one.n_open_now(usage)
        if n_open != one.n_open or one.model in self._used:
            one.n_open = n_open
            self.idle_since[one.model] = now
            self.residency.used(one.no, n_open, now)
        if len(self.served.terms) > 1 and self._scales.has_grown(one, now):
            self.residency.grew(one.no, one.held)

    def _stays_failed(self, model: str) -> bool:
        """Whether a failed model waits for its operator: the only one, as nothing else would."""
        return self.served.is_alone(model) and self.served.is_only(model)

    def _loaded(self, one: Resident, now: float) -> None:
        row, config = one.place.runner.status(), one.place.spec.config
        if row.facts is None or row.pid is None:
            return
        one.epoch = row.epoch
        held = self._scales.loaded(one, now)
        self.residency.loaded(one.no, held, now)
        if one.since is not None:
            key = self._needs.held(config, one.placement)
            self._needs.measured.loaded(key, row.facts.fingerprint, held, now - one.since)
            one.since = None
            if len(self.served.terms) > 1:  # a single one needs no account
                self._learnt()
        if one.model in self.served.terms:
            self.register(one.model)
        self.idle_since[one.model] = now
        self._hints.discard(one.model)

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
        self.workers.leave(one)

    # actions

    def _act(self, action: Action, now: float, refused: dict[str, Refuse]) -> None:
        match action:
            case Load():
                self.workers.load(action, on_demand=action.model not in self._hints)
            case Evict():
                logger.info("unloading model=%s reason=%s", action.model, action.reason)
                self.served.unloaded(action.model)
                self.workers.leave(self.workers[action.tenant])
            case Close() | Reopen():
                one = self.workers[action.tenant]
                self.workers.open(one, is_open=isinstance(action, Reopen))
            case Wait():
                self.waits[action.model] = action
            case Refuse():
                refused[action.model] = action
                self._hints.discard(action.model)

    def _adopt(self, now: float) -> None:
        """Take in the workers that the fleet has begun with."""
        for model in self._fleet.models():
            for place in self._fleet.group(model).places:
                self.workers.adopt(self.residency.adopt(model, now), model, place)

    def _gone(self, tenant: TenantNo) -> None:
        self.residency.gone(tenant, self._clock())
        self.poke()

    def _remove_forgotten(self) -> None:
        for model in self._forgotten - {one.model for one in self.workers.all()}:
            self._forgotten.discard(model)
            self._demand.forget(model)
            self.workers.own(self._fleet.remove(model), f"remove {model}")

    # what clients are told

    def _publish(self, now: float, refused: dict[str, Refuse]) -> None:
        """Put the reasons on the models that have no worker, and end the requests that wait in
        vain."""
        for model in self.served.terms:
            group = self._fleet.group(model)
            if not group.places:
                failure, wait = self.residency.failure(model, now), self.waits.get(model)
                queued = self.workers.is_queued(model)
                group.absence = absence_of(failure, refused.get(model), wait, now, is_queued=queued)
        for model, action in refused.items():
            self._demand.refuse(model, refusal(model, action))
