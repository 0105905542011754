"""The front's counters and durations. Pure: the time comes in as an argument.

Counters never go down, not even when workers are replaced.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from gpufc.ids import WorkerName

RATE_WINDOW_S = 10
SAMPLES = 2048
"""Percentiles are taken from this many of the latest durations."""


class Outcome(StrEnum):
    """How a request ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class RequestCounters(Struct):
    """Whole requests by their end; `replayed` counts sequences that went on with another worker.

    `lost` are those `failed` ones that a worker's death ended. `rejected` requests were refused
    before any of their sequences ran.
    """

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    rejected: int = 0
    replayed: int = 0
    lost: int = 0


class TokenCounters(Struct):
    """`prompt` and `prompt_cached` count each prompt once, however often it is replayed."""

    prompt: int = 0
    prompt_cached: int = 0
    generated: int = 0
    recomputed: int = 0


class Rate:
    """Events per second over the last `RATE_WINDOW_S` full seconds, in constant memory."""

    def __init__(self) -> None:
        self._counts = [0] * (RATE_WINDOW_S + 1)
        self._seconds = [-1] * (RATE_WINDOW_S + 1)

    def add(self, count: int, now: float) -> None:
        second = int(now)
        slot = second % len(self._counts)
        if self._seconds[slot] != second:
            self._seconds[slot] = second
            self._counts[slot] = 0
        self._counts[slot] += count

    def per_second(self, now: float) -> float:
        # the current second is left out, because it is not complete
        newest = int(now) - 1
        pairs = zip(self._seconds, self._counts, strict=True)
        recent = (n for second, n in pairs if newest - RATE_WINDOW_S < second <= newest)
        return sum(recent) / RATE_WINDOW_S

    def lately(self, now: float) -> float:
        """Events per second since the first event of the window; 0 without any."""
        oldest = int(now) - RATE_WINDOW_S
        pairs = zip(self._seconds, self._counts, strict=True)
        recent = [(second, n) for second, n in pairs if second >= oldest and n]
        if not recent:
            return 0.0
        return sum(n for _, n in recent) / max(1.0, now - min(recent)[0])


class Percentiles(Struct, frozen=True):
    """In seconds; None without a measurement."""

    p50: float | None
    p99: float | None


class Durations:
    """The latest `SAMPLES` durations, in seconds."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=SAMPLES)
        self.add = self._latest.append

    def percentiles(self) -> Percentiles:
        return _percentiles(self._latest)


def _percentiles(values: Iterable[float]) -> Percentiles:
    ordered = sorted(values)
    if not ordered:
        return Percentiles(None, None)
    last = len(ordered) - 1
    return Percentiles(ordered[round(last * 0.5)], ordered[round(last * 0.99)])


class Ledger:
    """All counters and durations of dispatch, over all models."""

    def __init__(self) -> None:
        self.requests = RequestCounters()
        self.tokens = TokenCounters()
        self.generation = Rate()
        self.by_worker: defaultdict[WorkerName, Rate] = defaultdict(Rate)
        self.time_to_first_token = Durations()
        self.inter_token = Durations()
        self.request = Durations()

    def generated(self, n_tokens: int, worker: WorkerName, now: float) -> None:
        """One step's new tokens."""
        self.tokens.generated += n_tokens
        self.generation.add(n_tokens, now)
        self.by_worker[worker].add(n_tokens, now)

    def ended(self, outcome: Outcome, seconds: float) -> None:
        """One request, `seconds` after it was accepted."""
        requests = self.requests
        match outcome:
            case Outcome.SUCCEEDED:
                requests.succeeded += 1
                self.request.add(seconds)
            case Outcome.FAILED:
                requests.failed += 1
            case Outcome.LOST:
                requests.failed += 1
                requests.lost += 1
            case Outcome.CANCELLED:
                requests.cancelled += 1
            case Outcome.REJECTED:
                requests.rejected += 1
