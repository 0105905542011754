"""How many connections there may be, in all and of one address, and which ones are closed for it.

Pure. Beyond each limit there is a small reserve: a connection there is served short routes only, so
that health checks get through.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

RESERVE = 32
"""Most places beyond a limit; at most an eighth of it, and at least one."""


class Held(Protocol):
    """A connection, as far as its place is concerned."""

    @property
    def address(self) -> str: ...

    @property
    def waits_since(self) -> float | None:
        """Since when it has waited for a whole header, in seconds; None while it is busy."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether it waits and has no part of a header."""
        ...


H = TypeVar("H", bound=Held)


class Entry(Struct, Generic[H], frozen=True):
    """`victim` is closed to make room. A connection `in_reserve` is served short routes only, as
    long as its address or the whole `is_crowded`."""

    admitted: bool
    in_reserve: bool = False
    victim: H | None = None


class Places(Generic[H]):
    """Invariant: `_by_address` has each counted connection once, and no empty set; `_n` is their
    number."""

    def __init__(self, most_of_address: int, most: int | None = None) -> None:
        """`most` bounds all connections together; None does not."""
        self._most_of_address = most_of_address
        self._most = most
        self._by_address: defaultdict[str, set[H]] = defaultdict(set)
        self._n = 0

    def enter(self, connection: H, patience_s: float, now: float) -> Entry[H]:
        """Count a connection in, if there is room or room can be made.

        Room is made by closing the idle connection that has waited longest, or else the one that
        has sent a part of a header for longest, and for longer than `patience_s`.
        """
        victim = self._victim(connection.address, patience_s, now)
        if victim is not None:
            self.leave(victim)
        n_mine = self._n_of(connection.address)
        is_full = n_mine >= _with_reserve(self._most_of_address) or (
            self._most is not None and self._n >= _with_reserve(self._most)
        )
        if is_full:
            return Entry(False, victim=victim)
        self._by_address[connection.address].add(connection)
        self._n += 1
        return Entry(True, self.is_crowded(connection.address), victim)

    def leave(self, connection: H) -> None:
        """Count a connection out. It may have been counted out before."""
        held = self._by_address.get(connection.address, set())
        if connection in held:
            held.remove(connection)
            self._n -= 1
            if not held:
                del self._by_address[connection.address]

    def is_crowded(self, address: str) -> bool:
        """Whether the reserve is in use, beyond the address's limit or that of all."""
        return self._n_of(address) > self._most_of_address or (
            self._most is not None and self._n > self._most
        )

    def _n_of(self, address: str) -> int:
        return len(self._by_address.get(address, ()))

    def _victim(self, address: str, patience_s: float, now: float) -> H | None:
        if self._n_of(address) >= self._most_of_address:
            return _longest_waiting(self._by_address[address], now - patience_s)
        if self._most is not None and self._n >= self._most:
            everyone = (one for held in self._by_address.values() for one in held)
            return _longest_waiting(everyone, now - patience_s)
        return None


def _with_reserve(most: int) -> int:
    return most + max(1, min(RESERVE, most // 8))


def _longest_waiting(connections: Iterable[H], begun_before: float) -> H | None:
    waiting = [(one, one.waits_since) for one in connections]
    candidates = [
        (not one.is_idle, since, one)
        for one, since in waiting
        if since is not None and (one.is_idle or since <= begun_before)
    ]
    return min(candidates, key=lambda found: found[:2])[2] if candidates else None
