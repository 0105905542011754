"""One decision: each model that is waited for, in order, gets an action."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from supervisor.residency.cooldown import Cooldowns
from supervisor.residency.plan import Plan, VictimOrder, plan
from supervisor.residency.port import (
    Action,
    Close,
    Evict,
    EvictReason,
    Load,
    Placement,
    Refuse,
    Rules,
    TenantNo,
    Terms,
    Wait,
    WaitReason,
)
from supervisor.residency.refusals import RETRY_S, never_fits
from supervisor.residency.room import Room
from supervisor.residency.tenant import SERVING, Stage, Tenant
from supervisor.residency.wanted import Wanted

RESIDENT = frozenset({Stage.LOADING, Stage.OPEN})
"""A model with such a tenant needs no other one before it can serve."""

MOST_PLANNED = 8
"""So many models that have to wait get a plan at once; the ones behind them wait for their turn.
Their claims would hardly leave room, and a decision stays short."""


class Decision:
    """The pass over the models of one call of `Residency.decide`.

    A model that has to wait claims its room, so that no model behind it takes that away.
    """

    def __init__(
        self,
        *,
        terms: Mapping[str, Terms],
        tenants: Sequence[Tenant],
        wanted: Wanted,
        cooldowns: Cooldowns,
        degraded: AbstractSet[str],
        room: Room,
        order: VictimOrder,
        rules: Rules,
        load: Callable[[str, Placement], tuple[Tenant, Load]],
        now: float,
    ) -> None:
        self._terms, self._tenants, self._wanted = terms, list(tenants), wanted
        self._cooldowns, self._degraded = cooldowns, degraded
        self._room, self._order, self._rules = room, order, rules
        self._load, self._now = load, now
        self._position = 0
        self.claimed: set[TenantNo] = set()
        """The closed tenants that a newcomer still waits for."""

    def actions(self) -> Iterator[Action]:
        """In order. The tenants change as they are made."""
        for model in self._wanted.in_order(self._terms):
            if self._has(model, RESIDENT):
                yield from self._loading(model)
            elif self._position >= MOST_PLANNED:
                yield self._wait(model, WaitReason.QUEUE)
            elif (refusal := self._refusal(model)) is not None:
                yield refusal
            else:
                yield from self._newcomer(model)
        yield from self._replicas()

    def _has(self, model: str, stages: AbstractSet[Stage]) -> bool:
        return any(one.model == model and one.stage in stages for one in self._tenants)

    def _n_places(self, model: str) -> int:
        """The places of a model that are taken, also those of workers that go or are to go."""
        return sum(one.model == model and one.stage is not Stage.GONE for one in self._tenants)

    def _loading(self, model: str) -> Iterable[Action]:
        """A model that loads now, or that is there: then its requests are about to start."""
        starts = [
            one.started_at
            for one in self._tenants
            if one.model == model and one.stage is Stage.LOADING
        ]
        if starts and not self._has(model, {Stage.OPEN}):
            load_s = self._terms[model].load_s
            left_s = max(0.0, min(starts) + load_s - self._now) if load_s else None
            yield Wait(model, WaitReason.LOADING, 0, left_s)

    def _refusal(self, model: str) -> Refuse | None:
        failure = self._cooldowns.pausing(model, self._now)
        if failure is not None:
            return Refuse(model, failure.reason, failure.until - self._now)
        found = never_fits(model, self._ways(model), self._room, self._tenants, self._terms)
        if found is None:
            return None
        return Refuse(model, found.detail, None if found.is_final else RETRY_S)

    def _ways(self, model: str) -> Sequence[Placement]:
        """The placements to consider: the whole ones, or the degraded ones where those cannot be.

        All of them if it is not known that the whole ones fail."""
        ways = self._terms[model].placements
        whole = [way for way in ways if not way.degraded]
        fewer = [way for way in ways if way.degraded]
        if not fewer or not whole:
            return ways
        if model in self._degraded:
            return fewer
        cannot = never_fits(model, whole, self._room, self._tenants, self._terms) is not None
        return fewer if cannot else whole

    def _newcomer(self, model: str) -> Iterable[Action]:
        if self._n_places(model) >= self._terms[model].replicas:  # its own worker has to go first
            yield self._wait(model, WaitReason.MEMORY_SETTLING)
            return
        settling = [one for one in self._tenants if one.stage in {Stage.LEAVING, Stage.GONE}]
        ways = self._ways(model)
        idle = self._ranked(one for one in self._candidates(model) if self._may_go(one, model))
        chosen = plan(model, ways, self._room, settling, idle)
        if chosen is None or chosen.victims:
            hoped = plan(model, ways, self._room.hopeful(), settling, ())
            if hoped is not None:  # wait for the next measurement rather than evict too much
                yield from self._settles(model, hoped)
                return
        if chosen is None:
            yield from self._blocked(model, ways, settling)
            return
        if not chosen.is_settling:
            tenant, action = self._load(model, chosen.placement)
            self._tenants.append(tenant)
            self._room.added(tenant)
            yield action
            return
        for one in chosen.victims:
            one.stage = Stage.LEAVING
            yield Evict(one.no, one.model, EvictReason.ROOM, model)
        yield from self._settles(model, chosen)

    def _settles(self, model: str, chosen: Plan) -> Iterable[Action]:
        """It will fit when memory has settled."""
        self._room.claim(chosen.need)
        self.claimed.update(one.no for one in self._tenants if one.closed_for == model)
        yield self._wait(model, WaitReason.MEMORY_SETTLING)

    def _candidates(self, model: str) -> Iterable[Tenant]:
        """The tenants that may ever be evicted for a model."""
        for one in self._tenants:
            is_pinned = one.model in self._terms and self._terms[one.model].pinned
            is_taken = one.closed_for not in {None, model}
            if one.stage in SERVING and one.model != model and not is_pinned and not is_taken:
                yield one

    def _may_go(self, tenant: Tenant, model: str) -> bool:
        """Whether it may be evicted now. Requests of an open one may be about to start."""
        starts = tenant.stage is Stage.OPEN and tenant.model in self._wanted
        return tenant.is_idle and not starts and self._stayed(tenant, model)

    def _stayed(self, tenant: Tenant, model: str) -> bool:
        return stay_until(tenant, model, self._terms, self._rules) <= self._now

    def _ranked(self, tenants: Iterable[Tenant]) -> list[Tenant]:
        """The first victim first: a closed one, then one of several workers of a model."""

        n_serving = Counter(one.model for one in self._tenants if one.stage in SERVING)

        def rank(tenant: Tenant) -> tuple[bool, bool, float]:
            worth = self._order.rank(tenant, self._now)
            return tenant.stage is not Stage.CLOSED, n_serving[tenant.model] == 1, worth

        return sorted(tenants, key=rank)

    def _blocked(
        self, model: str, ways: Sequence[Placement], settling: Sequence[Tenant]
    ) -> Iterable[Action]:
        """It does not fit now. Busy workers are closed once it has waited long enough."""
        loading = [one for one in self._tenants if one.stage is Stage.LOADING]
        chosen = plan(
            model, ways, self._room, [*settling, *loading], self._ranked(self._candidates(model))
        )
        if chosen is None:
            yield self._wait(model, WaitReason.QUEUE)
            return
        self._room.claim(chosen.need)
        is_patient = self._wanted.age_s(model, self._now) < self._rules.patience_s
        for one in chosen.victims:
            if one.stage is Stage.CLOSED:
                self.claimed.add(one.no)
            elif not is_patient and one.n_open and self._stayed(one, model):
                one.stage, one.closed_for = Stage.CLOSED, model
                self.claimed.add(one.no)
                yield Close(one.no, one.model, model)
        yield self._wait(model, self._why(chosen, model))

    def _why(self, chosen: Plan, model: str) -> WaitReason:
        if any(one.n_open for one in chosen.victims):
            return WaitReason.BUSY
        if any(not self._stayed(one, model) for one in chosen.victims):
            return WaitReason.MIN_STAY
        return WaitReason.MEMORY_SETTLING

    def _wait(self, model: str, reason: WaitReason) -> Wait:
        self._position += 1
        load_s = self._terms[model].load_s
        is_known = load_s and reason is WaitReason.MEMORY_SETTLING
        return Wait(model, reason, self._position, load_s if is_known else None)

    def _replicas(self) -> Iterable[Action]:
        """More workers for models that serve, where there is room that no model waits for."""
        n_places = Counter(one.model for one in self._tenants if one.stage is not Stage.GONE)
        for model, terms in self._terms.items():
            n = n_places[model]
            if not 0 < n < terms.replicas or not self._has(model, {Stage.OPEN}):
                continue
            if self._cooldowns.pausing(model, self._now) is not None or self._is_leaving(model):
                continue
            for _ in range(terms.replicas - n):
                chosen = plan(model, self._ways(model), self._room, (), ())
                if chosen is None:
                    break
                tenant, action = self._load(model, chosen.placement)
                self._tenants.append(tenant)
                self._room.added(tenant)
                yield action

    def _is_leaving(self, model: str) -> bool:
        return any(one.model == model and one.unloads for one in self._tenants)


def stay_until(tenant: Tenant, newcomer: str, terms: Mapping[str, Terms], rules: Rules) -> float:
    """When a tenant may be evicted for a newcomer: loads take at most a part of all time. One that
    has been idle for a part of a load serves no request by staying. A shorter pause tells nothing:
    clients that think for seconds would find a model that loads for a minute gone each time."""
    known = [terms[model].load_s for model in (tenant.model, newcomer) if model in terms]
    load_s = max(known, default=0.0)
    until = (tenant.ready_at or tenant.started_at) + max(
        rules.min_stay_s, rules.stay_per_load * load_s
    )
    pause_s = max(rules.pause_s, rules.pause_per_load * load_s)
    return min(until, tenant.last_used + pause_s) if tenant.is_idle else until
