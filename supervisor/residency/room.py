"""How much room there is at each place, now and after evictions: arithmetic on the account.

Two limits hold at once. The machine's: what was free at the last measurement, without the memory of
loads that it does not show yet. And the operator's: `Rules.limit_bytes` and `Rules.max_resident`,
without what all tenants hold.
"""

from collections.abc import Iterable
from typing import NamedTuple

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
        self._sums: dict[str, _Sums] = {}
        self._with_files: list[Tenant] | None = None

    def need(self, model: str, need: Memory) -> Amounts:
        """What one more worker of a model takes by place. It shares mapped files with others."""
        taken = {place: need.at(place) for place in need.places}
        if need.mapped_bytes and not any(one.model == model for one in self._counted()):
            taken[HOST] += need.mapped_bytes
        taken[WORKERS] = 1
        return taken

    def short(self, need: Amounts, without: Iterable[Tenant] = ()) -> Amounts:
        """What is missing for `need` at each place that lacks room, if those tenants were gone."""
        without = list(without)
        found = {}
        for place, n in need.items():
            if n and (room := self._room(place, without)) < n:
                found[place] = n - room
        return found

    def claim(self, need: Amounts) -> None:
        """Keep this much for a model that waits."""
        for place, n in need.items():
            self._claimed[place] = self._claimed.get(place, 0) + n

    def hopeful(self, *, with_claims: bool = True) -> "Room":
        """The same rooms, if the measurement already shows all that loads are taking.

        A load's memory appears bit by bit. What has appeared counts twice until the load is over
        and the memory is measured again: as taken, and as reserved."""
        other = Room(self._free, self._tenants, self._rules)
        other._claimed = dict(self._claimed) if with_claims else {}
        other._is_hopeful = True
        return other

    def added(self, tenant: Tenant) -> None:
        """A load has begun."""
        self._tenants.append(tenant)
        self._sums.clear()
        self._with_files = None

    @staticmethod
    def helps(tenant: Tenant, places: Iterable[str]) -> bool:
        """Whether the end of a tenant would give anything back at these places."""
        return any(
            _at(tenant, place) or (place == HOST and tenant.held.mapped_bytes) for place in places
        )

    def ceiling(self, place: str) -> int:
        """The most that a worker could ever take at a place: whatever the rules and the total."""
        total = 0 if self._free is None else self._free.total(place)
        spare = self._rules.reserve_bytes + self._context(place)
        limits = [self._limit(place), (total - spare) if total else UNLIMITED]
        return min(limits)

    def _counted(self) -> Iterable[Tenant]:
        return (one for one in self._tenants if one.stage is not Stage.GONE)

    def _limit(self, place: str) -> int:
        if place == WORKERS:
            most = self._rules.max_resident
            return UNLIMITED if most is None else most
        most = self._rules.limit_bytes.get(place)
        if most is None and place != HOST:
            most = self._rules.device_limit_bytes
        return UNLIMITED if most is None else most

    def _room(self, place: str, without: list[Tenant]) -> int:
        sums = self._sums.get(place)
        if sums is None:
            sums = self._sums[place] = self._sums_at(place)
        held, unseen, given = sums.held, sums.unseen, 0
        for one in without:
            n, with_context = _at(one, place), self._with_context(one, place)
            is_seen, is_alive = self._is_seen(one), one.stage is not Stage.GONE
            held -= n if is_alive else 0
            unseen -= with_context if is_alive and not is_seen else 0
            given += with_context if is_seen else 0
        mapped = self._mapped(without) if place == HOST else 0
        room = self._limit(place) - held - mapped
        if sums.free is not None:
            reserve = self._rules.reserve_bytes + self._context(place)
            room = min(room, sums.free - unseen + given - mapped - reserve)
        return room - self._claimed.get(place, 0)

    def _sums_at(self, place: str) -> "_Sums":
        alive = list(self._counted())
        free = None if self._free is None or place == WORKERS else self._free.free(place)
        return _Sums(
            held=sum(_at(one, place) for one in alive),
            unseen=sum(self._with_context(one, place) for one in alive if not self._is_seen(one)),
            free=free,
        )

    def _with_context(self, tenant: Tenant, place: str) -> int:
        """What a tenant takes of the memory that is free."""
        n = _at(tenant, place)
        return n + self._context(place) if n else 0

    def _context(self, place: str) -> int:
        return 0 if self._free is None else self._free.contexts.get(place, 0)

    def _mapped(self, without: list[Tenant]) -> int:
        """The mapped bytes of all files, each once. The kernel counts them as available."""
        if self._with_files is None:
            self._with_files = [one for one in self._counted() if one.held.mapped_bytes]
        files: dict[str, int] = {}
        for one in self._with_files:
            if one not in without:
                files[one.model] = max(files.get(one.model, 0), one.held.mapped_bytes)
        return sum(files.values())

    def _is_seen(self, tenant: Tenant) -> bool:
        """Whether the measurement shows a tenant's memory as taken."""
        if self._is_hopeful:
            return True
        settled_at = tenant.settled_at
        return settled_at is not None and self._free is not None and settled_at <= self._free.at


class _Sums(NamedTuple):
    """What all tenants hold at a place, the part of it that the measurement does not show, and what
    was free then."""

    held: int
    unseen: int
    free: int | None


def _at(tenant: Tenant, place: str) -> int:
    return 1 if place == WORKERS else tenant.held.at(place)
