"""A plan for one newcomer: where it goes, and which tenants have to go for it."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from supervisor.residency.port import Placement
from supervisor.residency.room import Amounts, Room
from supervisor.residency.tenant import Tenant


class VictimOrder(Protocol):
    """A policy of eviction: the tenant with the lowest rank goes first."""

    def rank(self, tenant: Tenant, now: float) -> float:
        """How much a tenant is worth keeping."""
        ...


class LeastRecentlyUsed:
    """The tenant that was used the longest ago goes first."""

    def rank(self, tenant: Tenant, now: float) -> float:
        return tenant.last_used


class Plan(Struct, frozen=True, eq=False):
    """`need` of `placement` fits once the memory of `settling` is back and `victims` are gone."""

    placement: Placement
    need: Amounts
    victims: tuple[Tenant, ...] = ()
    is_settling: bool = False


def plan(
    model: str,
    placements: Iterable[Placement],
    room: Room,
    settling: Sequence[Tenant],
    ranked: Sequence[Tenant],
) -> Plan | None:
    """The plan that costs the least; None if no placement fits even without all of `ranked`.

    `settling` are tenants whose memory is on its way back, and `ranked` those that may be evicted,
    the first victim first. Among placements without victims the first one wins, else the one whose
    most valuable victim ranks lowest.
    """
    found = [
        (one, made)
        for one in placements
        if (made := _for_placement(model, one, room, settling, ranked))
    ]
    rank = {id(tenant): number for number, tenant in enumerate(ranked, 1)}

    def cost(entry: tuple[Placement, Plan]) -> tuple[int, bool, int]:
        victims = entry[1].victims
        dearest = max((rank[id(one)] for one in victims), default=0)
        return dearest, entry[1].is_settling, len(victims)

    return min(found, key=cost)[1] if found else None


def _for_placement(
    model: str,
    placement: Placement,
    room: Room,
    settling: Sequence[Tenant],
    ranked: Sequence[Tenant],
) -> Plan | None:
    need = room.need(model, placement.need)
    if not room.short(need):
        return Plan(placement, need)
    victims: list[Tenant] = []
    waiting = list(ranked)
    while short := room.short(need, [*settling, *victims]):
        one = next((one for one in waiting if room.helps(one, short)), None)
        if one is None:
            return None
        waiting.remove(one)
        victims.append(one)
    for one in reversed(victims[:-1]):  # those that turned out not to be needed stay
        others = [other for other in victims if other is not one]
        if not room.short(need, [*settling, *others]):
            victims = others
    return Plan(placement, need, tuple(victims), is_settling=True)
