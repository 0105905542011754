"""The last hour of named figures, in memory of a fixed size. Pure: the time comes with them.

A point is the mean of the figures in its interval. Figures that were not recorded are None.
"""

import math
import threading
from array import array
from collections.abc import Mapping

from msgspec import Struct

INTERVAL_S = 5.0
N_POINTS = 720
MOST_TRACKS = 256
"""Of more names, the later ones are not kept. With 720 points each: 720 KiB."""


class Track(Struct, frozen=True):
    """One figure over time, oldest point first."""

    name: str
    points: tuple[float | None, ...]


class Recent(Struct, frozen=True, kw_only=True):
    """All figures over the same points. `begins_at` is the start of the first one's interval in
    unix seconds; point i covers `interval_s` from `begins_at + i * interval_s`."""

    begins_at: float
    interval_s: float
    tracks: tuple[Track, ...]


class History:
    """A ring of points for each name. `record` and `recent` from any thread.

    Invariant: point i of every ring belongs to the same interval.
    """

    def __init__(
        self,
        *,
        interval_s: float = INTERVAL_S,
        n_points: int = N_POINTS,
        most_tracks: int = MOST_TRACKS,
    ) -> None:
        self._interval_s = interval_s
        self._n_points = n_points
        self._most_tracks = most_tracks
        self._rings: dict[str, array[float]] = {}
        self._counts: dict[str, int] = {}
        self._first: int | None = None
        self._last = 0
        self._lock = threading.Lock()

    def record(self, at: float, figures: Mapping[str, float | None]) -> None:
        """Add figures of a moment, in unix seconds. One that is earlier than the last interval
        counts in that."""
        with self._lock:
            self._advance(int(at // self._interval_s))
            for name, value in figures.items():
                if value is not None and math.isfinite(value) and (ring := self._ring(name)):
                    count = self._counts[name] = self._counts.get(name, 0) + 1
                    place = self._last % self._n_points
                    mean = ring[place] if count > 1 else value
                    ring[place] = mean + (value - mean) / count

    def recent(self, since: float = 0.0) -> Recent:
        """The points whose intervals end after `since`, in unix seconds; the last one is still
        growing."""
        with self._lock:
            if self._first is None:
                return Recent(begins_at=0.0, interval_s=self._interval_s, tracks=())
            oldest = max(self._first, self._last - self._n_points + 1)
            begin = max(oldest, int(since // self._interval_s))
            places = [at % self._n_points for at in range(begin, self._last + 1)]
            tracks = tuple(
                Track(name, tuple(_point(ring[place]) for place in places))
                for name, ring in self._rings.items()
            )
        return Recent(
            begins_at=begin * self._interval_s, interval_s=self._interval_s, tracks=tracks
        )

    def _advance(self, interval: int) -> None:
        if self._first is None:
            self._first = self._last = interval
        if interval <= self._last:
            return
        for passed in range(max(self._last + 1, interval - self._n_points + 1), interval + 1):
            for ring in self._rings.values():
                ring[passed % self._n_points] = math.nan
        self._last = interval
        self._counts.clear()

    def _ring(self, name: str) -> "array[float] | None":
        ring = self._rings.get(name)
        if ring is None and len(self._rings) < self._most_tracks:
            ring = self._rings[name] = array("f", [math.nan]) * self._n_points
        return ring


def _point(value: float) -> float | None:
    return None if math.isnan(value) else value
