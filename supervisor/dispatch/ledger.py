"""The front's counters and durations, by model. Pure: the time comes in as an argument.

Counters never go down, not even when workers are replaced. `/stats` and `/metrics` read them here.
"""

from collections import defaultdict
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field, structs

from gpufc.errors import ModelNotFound, RequestError
from gpufc.ids import WorkerName
from gpufc.protocol import FinishReason
from supervisor.dispatch.durations import (
    INTER_TOKEN,
    REQUEST,
    TIME_TO_FIRST_TOKEN,
    Durations,
    Histogram,
    Latest,
)

RATE_WINDOW_S = 10

NO_MODEL = ""
"""The model of requests that were refused before their model was known."""


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


class ModelTotals(Struct, kw_only=True):
    """One model's counters, which another front can go on with.

    `succeeded` counts requests by the reason of their end, `rejected` those by the error's code.
    """

    succeeded: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    lost: int = 0
    cancelled: int = 0
    replayed: int = 0
    tokens: TokenCounters = field(default_factory=TokenCounters)
    durations: dict[str, Histogram] = field(default_factory=dict)


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


class ModelLedger:
    """One model's counters and durations. Its group writes them."""

    def __init__(self, everything: "Ledger") -> None:
        self.counters = ModelTotals()
        self.generation = Rate()
        self.time_to_first_token = Durations(TIME_TO_FIRST_TOKEN, everything.time_to_first_token)
        self.inter_token = Durations(INTER_TOKEN, everything.inter_token)
        self.request = Durations(REQUEST, everything.request)
        self.queue = Durations(REQUEST, everything.queue)
        self.resume_gap = Durations(TIME_TO_FIRST_TOKEN, everything.resume_gap)
        self._by_worker = everything.by_worker

    @property
    def tokens(self) -> TokenCounters:
        return self.counters.tokens

    def generated(self, n_tokens: int, worker: WorkerName, now: float) -> None:
        """One step's new tokens."""
        self.counters.tokens.generated += n_tokens
        self.generation.add(n_tokens, now)
        self._by_worker[worker].add(n_tokens, now)

    def replayed(self) -> None:
        """A sequence goes on with another worker."""
        self.counters.replayed += 1

    def ended(self, outcome: Outcome, seconds: float, reason: str = FinishReason.STOP) -> None:
        """One request, `seconds` after it was accepted.

        `reason` is the finish reason of a request that succeeded, the error's code of another one.
        """
        counters = self.counters
        match outcome:
            case Outcome.SUCCEEDED:
                _count(counters.succeeded, reason)
                self.request.add(seconds)
            case Outcome.FAILED:
                counters.failed += 1
            case Outcome.LOST:
                counters.failed += 1
                counters.lost += 1
            case Outcome.CANCELLED:
                counters.cancelled += 1
            case Outcome.REJECTED:
                _count(counters.rejected, reason)

    def totals(self) -> ModelTotals:
        """The counters with the histograms, as they are now: a copy."""
        counters = self.counters
        return structs.replace(
            counters,
            succeeded=dict(counters.succeeded),
            rejected=dict(counters.rejected),
            tokens=structs.replace(counters.tokens),
            durations={name: kind.histogram for name, kind in self._kinds().items()},
        )

    def restore(self, totals: ModelTotals) -> None:
        """Go on from another front's totals."""
        for name, kind in self._kinds().items():
            if name in totals.durations:
                kind.restore(totals.durations[name])
        self.counters = structs.replace(totals, durations={})

    def _kinds(self) -> dict[str, Durations]:
        return {
            "time_to_first_token": self.time_to_first_token,
            "inter_token": self.inter_token,
            "request": self.request,
            "queue": self.queue,
            "resume_gap": self.resume_gap,
        }


class Ledger:
    """All counters and durations of dispatch."""

    def __init__(self) -> None:
        self.by_worker: defaultdict[WorkerName, Rate] = defaultdict(Rate)
        self.time_to_first_token = Latest()
        self.inter_token = Latest()
        self.request = Latest()
        self.queue = Latest()
        self.resume_gap = Latest()
        self._models: dict[str, ModelLedger] = {}

    def of(self, model: str) -> ModelLedger:
        """The ledger of a served model, or of `NO_MODEL`."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelLedger(self)
        return found

    def rejected(self, error: RequestError, model: str = NO_MODEL) -> None:
        """A request was refused before it was accepted."""
        # a client can invent any number of names
        known = NO_MODEL if isinstance(error, ModelNotFound) else model
        _count(self.of(known).counters.rejected, error.code)

    def totals(self) -> dict[str, ModelTotals]:
        """All counters and histograms by model, as they are now."""
        return {name: model.totals() for name, model in self._models.items()}

    def restore(self, totals: Mapping[str, ModelTotals]) -> None:
        """Go on from another front's totals."""
        for name, of_model in totals.items():
            self.of(name).restore(of_model)

    @property
    def requests(self) -> RequestCounters:
        """The sums over all models."""
        sums = RequestCounters()
        for model in self._models.values():
            counters = model.counters
            sums.succeeded += sum(counters.succeeded.values())
            sums.failed += counters.failed
            sums.cancelled += counters.cancelled
            sums.rejected += sum(counters.rejected.values())
            sums.replayed += counters.replayed
            sums.lost += counters.lost
        return sums

    @property
    def tokens(self) -> TokenCounters:
        """The sums over all models."""
        sums = TokenCounters()
        for model in self._models.values():
            tokens = model.tokens
            sums.prompt += tokens.prompt
            sums.prompt_cached += tokens.prompt_cached
            sums.generated += tokens.generated
            sums.recomputed += tokens.recomputed
        return sums

    def generated_per_second(self, now: float) -> float:
        """The rate of all models together."""
        return sum(model.generation.per_second(now) for model in self._models.values())


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1
