"""The owner of residency: facts in, actions out.

`wanted` orders the models that are waited for, `plan` finds a place and victims for each, `room`
counts the bytes. This module keeps the tenants and carries the rules from one call to the next.
"""

import itertools
from collections.abc import Iterable, Iterator

from supervisor.residency.cooldown import Cooldowns
from supervisor.residency.deciding import Decision, stay_until
from supervisor.residency.memory import Free, Memory
from supervisor.residency.plan import LeastRecentlyUsed, VictimOrder
from supervisor.residency.port import (
    Action,
    Close,
    Evict,
    EvictReason,
    Load,
    Placement,
    Reopen,
    Rules,
    State,
    TenantNo,
    Terms,
)
from supervisor.residency.refusals import never_fits
from supervisor.residency.room import Room
from supervisor.residency.tenant import SERVING, Stage, Tenant
from supervisor.residency.wanted import Wanted

DEFAULT_RULES = Rules()


class Residency:
    """Decides which models are in memory. One object for the front, called in the event loop.

    The fleet tells it facts by the methods below, and calls `decide` after each, and at `wake_at`.
    It carries out each action that `decide` returns, in order. `Load`, `Evict`, `Close` and
    `Reopen` are said once; `Wait` and `Refuse` are said at each call for as long as they hold.

    Invariants:

    - A busy or pinned worker is not evicted, and none for a model that would not fit then.
    - The reserved memory of loads and the memory of workers never exceed what there is.
    - A model whose requests wait is loaded after a bounded time, if it fits at all.
    """

    def __init__(self, rules: Rules = DEFAULT_RULES, order: VictimOrder | None = None) -> None:
        self.rules = rules
        self._order = order or LeastRecentlyUsed()
        self._terms: dict[str, Terms] = {}
        self._tenants: dict[TenantNo, Tenant] = {}
        self._numbers: Iterator[int] = itertools.count(1)
        self._wanted = Wanted()
        self._cooldowns = Cooldowns()
        self._degraded: set[str] = set()
        """Models whose whole placement has failed for lack of memory."""
        self._free: Free | None = None

    # models

    def register(self, model: str, terms: Terms) -> None:
        """Make a model known, or change its terms. Workers that are loaded stay as they are."""
        self._terms[model] = terms

    def forget(self, model: str) -> None:
        """The model is not served any more: its workers go when they are idle."""
        self._terms.pop(model, None)
        self._wanted.set(model, 0, 0.0)
        self.forgive(model)
        for tenant in self._of(model):
            tenant.unloads = True

    def forgive(self, model: str) -> None:
        """End a model's cool-down: its file or its configuration has changed."""
        self._cooldowns.forget(model)
        self._degraded.discard(model)

    # requests

    def demand(self, model: str, n_waiting: int, now: float) -> None:
        """So many requests of a model wait for a worker now. The wait begins at the call that
        raises the number above 0. A hint to load, or a preload, is a demand of one.

        A hint that should not evict: `demand(…)` only while `would_fit(model)`.
        """
        self._wanted.set(model, n_waiting, now)

    def unload(self, model: str, now: float) -> None:
        """An operator wants a model unloaded: closed, then evicted when idle. Pinned ones too."""
        self._wanted.set(model, 0, now)
        for tenant in self._of(model):
            tenant.unloads = True

    # workers

    def adopt(self, model: str, now: float) -> TenantNo:
        """A worker of a registered model runs or loads already, by no decision of this object.
        `loaded` follows once it is ready."""
        tenant, _ = self._load(model, self._terms[model].placements[0], now)
        return tenant.no

    def used(self, tenant: TenantNo, n_open: int, now: float) -> None:
        """A sequence of this worker has begun or ended; `n_open` are left. With any it is busy."""
        one = self._tenants.get(tenant)
        if one is not None:
            one.n_open, one.last_used = n_open, now

    def loaded(self, tenant: TenantNo, held: Memory, now: float) -> None:
        """The worker is ready, and takes this memory at its peak."""
        one = self._tenants.get(tenant)
        if one is None or one.stage is not Stage.LOADING:
            return
        if one.ready_at is None:
            one.ready_at = one.last_used = now
        one.stage, one.held, one.settled_at = Stage.OPEN, held, now
        self._cooldowns.forget(one.model)

    def grew(self, tenant: TenantNo, held: Memory) -> None:
        """A loaded worker takes this much by now, which is more than it did."""
        one = self._tenants.get(tenant)
        if one is not None and one.stage in SERVING:
            one.held = held

    def restarting(self, tenant: TenantNo, now: float) -> None:
        """The worker died and is started again in its place. `loaded` or `load_failed` follows."""
        one = self._tenants.get(tenant)
        if one is not None and one.stage in SERVING:
            one.stage, one.started_at, one.settled_at = Stage.LOADING, now, None
            one.n_open, one.closed_for = 0, None

    def load_failed(
        self, tenant: TenantNo, reason: str, now: float, *, lacked_memory: bool = False
    ) -> None:
        """The load has failed for good. `gone` follows, when its process has ended.

        The model cools down, unless memory was lacking and a degraded placement has not been tried.
        """
        one = self._tenants.get(tenant)
        if one is None or one.stage is not Stage.LOADING:
            return
        one.stage = Stage.LEAVING
        terms = self._terms.get(one.model)
        can_degrade = terms is not None and any(way.degraded for way in terms.placements)
        if lacked_memory and can_degrade and not one.placement.degraded:
            self._degraded.add(one.model)
        elif terms is not None:
            self._cooldowns.failed(one.model, reason, now)

    def gone(self, tenant: TenantNo, now: float) -> None:
        """The worker's process has ended. Its memory counts as free from the next measurement."""
        one = self._tenants.get(tenant)
        if one is not None:
            one.stage, one.gone_at, one.n_open = Stage.GONE, now, 0
            self._sweep()

    def measured(self, free: Free) -> None:
        """A measurement of the machine's memory. At least after each `gone`, and each few seconds
        while anything waits."""
        self._free = free
        self._sweep()

    def _sweep(self) -> None:
        """Forget the tenants whose memory the measurement shows as given back."""
        for one in list(self._tenants.values()):
            at = one.gone_at
            if at is not None and (self._free is None or self._free.at >= at):
                del self._tenants[one.no]

    # decisions

    def decide(self, now: float) -> tuple[Action, ...]:
        """The actions of now."""
        actions: list[Action] = [*self._unloads(now)]
        decision = Decision(
            terms=self._terms,
            tenants=list(self._tenants.values()),
            wanted=self._wanted,
            cooldowns=self._cooldowns,
            degraded=self._degraded,
            room=Room(self._free, self._tenants.values(), self.rules),
            order=self._order,
            rules=self.rules,
            load=lambda model, placement: self._load(model, placement, now),
            now=now,
        )
        actions += decision.actions()
        actions += self._reopened(decision.claimed)
        return tuple(actions)

    def _unloads(self, now: float) -> Iterable[Action]:
        for one in self._tenants.values():
            if one.unloads and one.stage is Stage.OPEN and one.n_open:
                one.stage = Stage.CLOSED
                yield Close(one.no, one.model, None)
            if not one.is_idle:
                continue
            reason = self._reason_to_go(one, now)
            if reason is not None:
                one.stage = Stage.LEAVING
                yield Evict(one.no, one.model, reason)

    def _reason_to_go(self, tenant: Tenant, now: float) -> EvictReason | None:
        if tenant.unloads:
            known = tenant.model in self._terms
            return EvictReason.ASKED if known else EvictReason.FORGOTTEN
        expires_at = self._expires_at(tenant)
        return EvictReason.EXPIRED if expires_at is not None and expires_at <= now else None

    def _expires_at(self, tenant: Tenant) -> float | None:
        """When a tenant goes by its keep-alive. The replicas of a model go together."""
        terms = self._terms.get(tenant.model)
        if terms is None or terms.keep_alive_s is None or terms.pinned:
            return None
        if tenant.model in self._wanted or any(one.n_open for one in self._of(tenant.model)):
            return None
        return max(one.last_used for one in self._of(tenant.model)) + terms.keep_alive_s

    def _load(self, model: str, placement: Placement, now: float) -> tuple[Tenant, Load]:
        tenant = Tenant(TenantNo(next(self._numbers)), model, placement, now)
        self._tenants[tenant.no] = tenant
        return tenant, Load(tenant.no, model, placement)

    def _reopened(self, claimed: set[TenantNo]) -> Iterable[Action]:
        """Open the closed tenants that no plan wants any more."""
        for one in self._tenants.values():
            if one.stage is Stage.CLOSED and not one.unloads and one.no not in claimed:
                one.stage, one.closed_for = Stage.OPEN, None
                yield Reopen(one.no, one.model)

    def wake_at(self, now: float) -> float | None:
        """When to call `decide` again without a new fact: a keep-alive, a stay, a cool-down or a
        patience ends then. None if nothing is due."""
        idle = [one for one in self._tenants.values() if one.is_idle]
        times = [at for one in idle if (at := self._expires_at(one)) is not None]
        for model in self._wanted.in_order(self._terms):
            if (failure := self._cooldowns.pausing(model, now)) is not None:
                times.append(failure.until)
            since = now - self._wanted.age_s(model, now)
            times.append(since + self.rules.patience_s)
            times += [stay_until(one, model, self._terms, self.rules) for one in self._open()]
        return min((at for at in times if at > now), default=None)

    # views

    def state(self, model: str, now: float) -> State:
        """A registered model's state."""
        stages = {one.stage for one in self._of(model)}
        if stages & SERVING:
            is_busy = any(one.n_open for one in self._of(model))
            return State.BUSY if is_busy else State.READY
        if Stage.LOADING in stages:
            return State.LOADING
        if self._cooldowns.pausing(model, now) is not None:
            return State.FAILED
        return State.UNLOADING if Stage.LEAVING in stages else State.UNLOADED

    def failure(self, model: str, now: float) -> tuple[str, float] | None:
        """Why a model's load failed, and in how many seconds it is tried again."""
        failure = self._cooldowns.pausing(model, now)
        return None if failure is None else (failure.reason, failure.until - now)

    def would_fit(self, model: str) -> bool:
        """Whether a worker of the model fits now without any eviction."""
        room = Room(self._free, self._tenants.values(), self.rules)
        ways = self._terms[model].placements
        return any(not room.short(room.need(model, way.need)) for way in ways)

    def refusal(self, model: str, now: float) -> str | None:
        """Why a model can never be loaded as things are; None if it can. Says so before any
        eviction."""
        room = Room(self._free, self._tenants.values(), self.rules)
        ways = self._terms[model].placements
        found = never_fits(model, ways, room, self._tenants.values(), self._terms)
        return None if found is None else found.detail

    def _of(self, model: str) -> list[Tenant]:
        return [one for one in self._tenants.values() if one.model == model]

    def _open(self) -> list[Tenant]:
        return [one for one in self._tenants.values() if one.stage in SERVING]
