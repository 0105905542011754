"""Durations in constant memory: histograms, which only grow, and the latest ones. Pure."""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

SAMPLES = 2048
"""Percentiles are taken from this many of the latest durations."""

TIME_TO_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
INTER_TOKEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
REQUEST = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
"""The upper bounds of vLLM's buckets, in seconds, so that its dashboards fit."""


class Histogram(Struct, frozen=True):
    """Durations by bucket. `counts` has one number for each bound, and one for all above the last.

    The counts are not cumulative. A duration equal to a bound lies below it.
    """

    counts: tuple[int, ...]
    total_s: float

    @property
    def n_durations(self) -> int:
        return sum(self.counts)


class Percentiles(Struct, frozen=True):
    """In seconds; None without a measurement."""

    p50: float | None
    p99: float | None


class Latest:
    """The latest `SAMPLES` durations of all models, in seconds."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=SAMPLES)
        self.add = self._values.append

    def percentiles(self) -> Percentiles:
        ordered = sorted(self._values)
        if not ordered:
            return Percentiles(None, None)
        last = len(ordered) - 1
        return Percentiles(ordered[round(last * 0.5)], ordered[round(last * 0.99)])


class Durations:
    """One model's durations of one kind. They count among the latest of all models too."""

    __slots__ = ("_add_latest", "_at", "_bounds", "_counts", "_seconds", "_total_s")

    def __init__(self, bounds: Sequence[float], latest: Latest) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total_s = 0.0
        self._add_latest = latest.add
        self._seconds, self._at = 0.0, 0  # the duration before and its bucket

    def add(self, seconds: float) -> None:
        """Called for each token of each sequence."""
        self._add_latest(seconds)
        if seconds != self._seconds:  # the sequences of a step mostly have equal durations
            self._seconds, self._at = seconds, bisect_left(self._bounds, seconds)
        self._counts[self._at] += 1
        self._total_s += seconds

    @property
    def histogram(self) -> Histogram:
        """All of them as they are now."""
        return Histogram(tuple(self._counts), self._total_s)

    def restore(self, histogram: Histogram) -> None:
        """Go on from another front's histogram. One with other buckets is dropped."""
        if len(histogram.counts) == len(self._counts):
            self._counts = list(histogram.counts)
            self._total_s = histogram.total_s
