"""Finds connections whose clients take nothing. Pure."""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from msgspec import Struct

Connection = TypeVar("Connection", bound=Hashable)

SPARED_BYTES = 128 * 1024
"""A connection with at most so many bytes is not given up before its time."""


class _Seen(Struct):
    n_bytes: int
    since: float


class Stalls(Generic[Connection]):
    """Follows the bytes that each connection has yet to take.

    A connection is stalled once that number has been above 0 and has not fallen for `limit_s`.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._seen: dict[Connection, _Seen] = {}

    def look(self, backlogs: Mapping[Connection, int], now: float) -> list[Connection]:
        """The stalled connections. `backlogs` has the bytes of every connection now."""
        before, self._seen = self._seen, {}
        stalled = []
        for connection, n_bytes in backlogs.items():
            if not n_bytes:
                continue
            seen = before.get(connection)
            has_taken = seen is None or n_bytes < seen.n_bytes
            since = now if has_taken or seen is None else seen.since
            self._seen[connection] = _Seen(n_bytes, since)
            if now - since >= self._limit_s:
                stalled.append(connection)
        return stalled

    def to_relieve(self, n_over: int, for_s: float, now: float) -> list[Connection]:
        """Those to give up before their time, so that `n_over` bytes are freed: of the connections
        that have taken nothing for `for_s`, stalled ones apart, those with the most bytes. `now`
        is the time of the last look.

        The kernel passes on what a slow reader takes in pieces of half of what it keeps unsent. So
        a reader with little left may seem to take nothing for long, and is spared.
        """
        found = [
            (seen.n_bytes, connection)
            for connection, seen in self._seen.items()
            if for_s <= now - seen.since < self._limit_s and seen.n_bytes > SPARED_BYTES
        ]
        chosen = []
        for n_bytes, connection in sorted(found, key=lambda one: one[0], reverse=True):
            if n_over <= 0:
                break
            chosen.append(connection)
            n_over -= n_bytes
        return chosen
