"""Which hosts the book keeps: a host that never comes back must not fill it up. Pure.

A pod gets a new key each time it is made, so the keys of its predecessors would stay for ever.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar

AWAY_S = 7 * 86_400.0
"""A host that was away for so long has left for good; it needs another join file."""

GIVES_PLACE_S = 3600.0
"""In a full book the host that is away the longest gives its place, but none before this time."""


class Seen(Protocol):
    """A host's name, and when it was last attached (unix time)."""

    @property
    def machine(self) -> str: ...
    @property
    def seen_at(self) -> float: ...


H = TypeVar("H", bound=Seen)


def kept(
    hosts: Sequence[H], attached: AbstractSet[str], now: float, since: float, most: int
) -> tuple[H, ...]:
    """The hosts that stay, in their order: at most `most`, if enough of the others may leave.

    No attached host leaves. Time before `since`, when the front began to listen, does not count:
    no host could come back then.
    """
    away_s = {
        host.machine: now - max(since, host.seen_at)
        for host in hosts
        if host.machine not in attached
    }
    gone = {machine for machine, time_s in away_s.items() if time_s > AWAY_S}
    n_over = len(hosts) - len(gone) - most
    if n_over > 0:
        may = [one for one in away_s if one not in gone and away_s[one] > GIVES_PLACE_S]
        oldest = {host.machine: host.seen_at for host in hosts}
        gone.update(sorted(may, key=oldest.__getitem__)[:n_over])
    return tuple(host for host in hosts if host.machine not in gone)
