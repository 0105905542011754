"""Finds connections whose clients take nothing. Pure."""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from msgspec import Struct

Connection = TypeVar("Connection", bound=Hashable)


class _Seen(Struct):
    n_bytes: int
    since: float


class Stalls(Generic[Connection]):
    """Follows the bytes that each connection has yet to take.

    A connection is stalled once that number has been above 0 and has not fallen for `limit_s`,
    which may be changed.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
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
            if now - since >= self.limit_s:
                stalled.append(connection)
        return stalled
