"""How much room there is at each place, now and after evictions: arithmetic on the account.

Two limits hold at once. The machine's: what was free at the last measurement, without the memory of
loads that it does not show yet. And the operator's: `Rules.limit_bytes` and `Rules.max_resident`,
without what all tenants hold.
"""

from collections.abc import Iterable

from supervisor.residency.memory import HOST, Free, Memory
from supervisor.residency.port import Rules
from supervisor.residency.tenant import Stage, Tenant

WORKERS = "workers"
"""The place of which each tenant takes one: `Rules.max_resident` limits it."""

Amounts = dict[str, int]
UNLIMITED = 1 << 62


class Room:
    """The rooms of one decision. `claim` takes from them for models that wait."""

    def __init__(self, free: Free | None, tenants: Iterable[Tenant], rules: Rules) -> None:
        self._free, self._rules = free, rules
        self._tenants = list(tenants)
        self._claimed: Amounts = {}
        self._is_hopeful = False

    def need(self, model: str, need: Memory) -> Amounts:
        """What one more worker of a model takes by place. It shares mapped files with others."""
        return self._taken(need, is_mapped=any(one.model == model for one in self._counted()))

    def short(self, need: Amounts, without: Iterable[Tenant] = ()) -> Amounts:
        """What is missing for `need` at each place that lacks room, if those tenants were gone."""
        without = list(without)
        rooms = {place: self._room(place, without) for place in need}
        return {place: n - rooms[place] for place, n in need.items() if n > rooms[place]}

    def claim(self, need: Amounts) -> None:
        """Keep this much for a model that waits."""
        for place, n in need.items():
            self._claimed[place] = self._claimed.get(place, 0) + n

    def unclaimed(self) -> "Room":
        """The same rooms without claims."""
        return Room(self._free, self._tenants, self._rules)

    def hopeful(self) -> "Room":
        """The same rooms, if the measurement already shows all that loads are taking.

        A load's memory appears bit by bit. What has appeared counts twice until the load is over
        and the memory is measured again: as taken, and as reserved."""
        other = Room(self._free, self._tenants, self._rules)
        other._claimed, other._is_hopeful = dict(self._claimed), True
        return other

    def added(self, tenant: Tenant) -> None:
        """A load has begun."""
        self._tenants.append(tenant)

    def helps(self, tenant: Tenant, places: Iterable[str]) -> bool:
        """Whether the end of a tenant would give anything back at these places."""
        held = self._taken(tenant.held, is_mapped=False)
        return any(held.get(place) for place in places)

    def ceiling(self, place: str) -> int:
        """The most that a worker could ever take at a place: whatever the rules and the total."""
        total = 0 if self._free is None else self._free.total(place)
        limits = [self._limit(place), (total - self._rules.reserve_bytes) if total else UNLIMITED]
        return min(limits)

    def _counted(self) -> Iterable[Tenant]:
        return (one for one in self._tenants if one.stage is not Stage.GONE)

    def _limit(self, place: str) -> int:
        if place == WORKERS:
            most = self._rules.max_resident
            return UNLIMITED if most is None else most
        return self._rules.limit_bytes.get(place, UNLIMITED)

    def _taken(self, held: Memory, *, is_mapped: bool) -> Amounts:
        taken = {place: held.at(place) for place in held.places}
        if not is_mapped:
            taken[HOST] += held.mapped_bytes
        taken[WORKERS] = 1
        return taken

    def _room(self, place: str, without: list[Tenant]) -> int:
        kept = [one for one in self._tenants if one not in without]
        by_rules = self._limit(place) - self._sum(place, self._alive(kept))
        by_machine = self._measured(place, kept, without)
        return min(by_rules, by_machine) - self._claimed.get(place, 0)

    def _measured(self, place: str, kept: list[Tenant], without: list[Tenant]) -> int:
        """What the machine has: measured, without what the measurement does not show yet."""
        free = None if self._free is None or place == WORKERS else self._free.free(place)
        if self._free is None or free is None:
            return UNLIMITED
        at = self._free.at
        unseen = sum(one.held.at(place) for one in self._alive(kept) if not self._is_seen(one, at))
        given = sum(one.held.at(place) for one in without if _is_seen(one, at))
        mapped = self._mapped(self._alive(kept)) if place == HOST else 0
        return free - unseen + given - mapped - self._rules.reserve_bytes

    def _is_seen(self, tenant: Tenant, at: float) -> bool:
        return self._is_hopeful or _is_seen(tenant, at)

    def _sum(self, place: str, tenants: list[Tenant]) -> int:
        if place == WORKERS:
            return len(tenants)
        mapped = self._mapped(tenants) if place == HOST else 0
        return sum(one.held.at(place) for one in tenants) + mapped

    @staticmethod
    def _alive(tenants: Iterable[Tenant]) -> list[Tenant]:
        return [one for one in tenants if one.stage is not Stage.GONE]

    @staticmethod
    def _mapped(tenants: Iterable[Tenant]) -> int:
        """The mapped bytes of all files, each once. The kernel counts them as available."""
        files: dict[str, int] = {}
        for one in tenants:
            files[one.model] = max(files.get(one.model, 0), one.held.mapped_bytes)
        return sum(files.values())


def _is_seen(tenant: Tenant, at: float) -> bool:
    """Whether a measurement at this time shows a tenant's memory as taken."""
    return tenant.settled_at is not None and tenant.settled_at <= at
