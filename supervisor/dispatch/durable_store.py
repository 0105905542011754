"""Which durable requests are kept: all running ones, and finished ones within the limits. Pure."""

from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from gpufc.config import LimitsConfig
from gpufc.errors import InvalidRequest, NotFound, Overloaded, RequestTooLarge
from supervisor.dispatch.durable import DurableKey, DurableRequest
from supervisor.dispatch.stream import ResponseStream

SEQUENCE_BYTES = 4096
"""Roughly the memory of a sequence without prompt and text."""

RETRY_AFTER_S = 5.0


class DurableSummary(Struct, frozen=True):
    """Durable requests now. `abandoned` ones run or wait without a client; they are a part of the
    `running` ones. `bytes` is an estimate."""

    running: int
    abandoned: int
    finished: int
    bytes: int


class DurableRequests:
    """The durable requests that are kept: all running ones, and finished ones within the limits.

    Invariants: a key is in at most one of `_running` and `_finished`; `_finished` is in the order
    of the ends; finished requests are dropped, the oldest of the principal with the most first,
    until both together are within the limits: no principal can have the answers of others dropped.
    A dropped request stays readable for its current readers.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        *,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._call_later = call_later
        self._running: dict[DurableKey, DurableRequest] = {}
        self._finished: dict[DurableKey, DurableRequest] = {}
        self._running_bytes = 0
        self._finished_bytes = 0
        self._expiry_is_due = False

    def __len__(self) -> int:
        return len(self._running) + len(self._finished)

    @property
    def n_bytes(self) -> int:
        """An estimate of all their memory, logs included."""
        return self._running_bytes + self._finished_bytes

    def has(self, key: DurableKey) -> bool:
        """Whether there is a request under that key."""
        return key in self._running or key in self._finished

    def summary(self) -> "DurableSummary":
        """How many there are, and their memory."""
        return DurableSummary(
            running=len(self._running),
            abandoned=sum(one.abandoned_at is not None for one in self._running.values()),
            finished=len(self._finished),
            bytes=self.n_bytes,
        )

    def delete(self, key: DurableKey) -> bool:
        """End the request of that key, or forget its answer. Its readers get an error.

        False if there is no such request.
        """
        running = self._running.get(key)
        if running is not None:
            running.stream.cancel(NotFound("The request was deleted"))
            return True
        return self._drop(key)

    def abandoned(self, request: DurableRequest) -> float:
        """The last reader of a running request has left, at the time that is returned. The request
        is ended if none comes within `durable_idle_s`."""
        since = self._clock()

        def end_if_still() -> None:
            if request.abandoned_at == since:
                request.stream.cancel()

        self._call_later(self._limits.durable_idle_s, end_if_still)
        return since

    def find(self, key: DurableKey, digest: bytes) -> DurableRequest | None:
        """The request under that key. Raises `InvalidRequest` for another request's key."""
        self._expire()
        found = self._running.get(key) or self._finished.get(key)
        if found is not None and found.digest != digest:
            raise InvalidRequest(
                "This Idempotency-Key belongs to another request; a new request needs a new key",
                param="Idempotency-Key",
            )
        return found

    def require_room(self, n_bytes: int, n_sequences: int) -> None:
        """Check that a request with a body of that size fits beside the running ones.

        Raises `RequestTooLarge` or `Overloaded`.
        """
        n_bytes += SEQUENCE_BYTES * n_sequences
        if n_bytes > self._limits.max_durable_bytes:
            raise RequestTooLarge("The request is too large to be durable")
        full = len(self._running) >= self._limits.max_durable_requests
        if full or self._running_bytes + n_bytes > self._limits.max_durable_bytes:
            raise Overloaded("Too many durable requests are running", retry_after_s=RETRY_AFTER_S)

    def add(
        self, key: DurableKey, digest: bytes, n_bytes: int, stream: ResponseStream
    ) -> DurableRequest:
        """Keep a request that was just submitted. `n_bytes` is the size of its body."""
        added = self.take_in(key, digest, n_bytes, stream)
        stream.observe(added)
        return added

    def take_in(
        self, key: DurableKey, digest: bytes, n_bytes: int, stream: ResponseStream
    ) -> DurableRequest:
        """As `add`, for a request that has yet to be restored. It counts as running until its
        stream is observed."""
        n_bytes += SEQUENCE_BYTES * len(stream.logs)
        added = self._running[key] = DurableRequest(key, digest, stream, n_bytes, self)
        self.grew(n_bytes)
        return added

    def grew(self, n_bytes: int) -> None:
        """A running request takes that many bytes more."""
        self._running_bytes += n_bytes
        self._shrink()

    def ended(self, request: DurableRequest) -> None:
        """A running request has ended. It is kept if its end is an answer."""
        del self._running[request.key]
        self._running_bytes -= request.n_bytes
        if not is_an_answer(request.stream):
            return
        request.expires_at = self._clock() + self._limits.durable_window_s
        self._finished[request.key] = request
        self._finished_bytes += request.n_bytes
        self._shrink()
        self._expect_expiry()

    def _shrink(self) -> None:
        """Drop finished requests until the limits hold."""
        limits = self._limits
        while self._finished and len(self) > limits.max_durable_requests:
            self._drop_of_most(lambda _: 1)
        while self._finished and self.n_bytes > limits.max_durable_bytes:
            self._drop_of_most(lambda one: one.n_bytes)

    def _drop_of_most(self, weight: Callable[[DurableRequest], int]) -> None:
        """Drop the oldest request of the principal whose requests weigh most."""
        weights = Counter[str]()
        for key, one in self._finished.items():
            weights[key.principal] += weight(one)
        most = max(weights, key=weights.__getitem__)
        self._drop(next(key for key in self._finished if key.principal == most))

    def _drop(self, key: DurableKey) -> bool:
        dropped = self._finished.pop(key, None)
        if dropped is not None:
            self._finished_bytes -= dropped.n_bytes
        return dropped is not None

    def _oldest(self) -> DurableRequest | None:
        return next(iter(self._finished.values()), None)

    def _expire(self) -> None:
        now = self._clock()
        while (oldest := self._oldest()) is not None and oldest.expires_at <= now:
            self._drop(oldest.key)

    def _expect_expiry(self) -> None:
        """Set a timer for the oldest finished request, so that it is dropped without a lookup."""
        oldest = self._oldest()
        if oldest is not None and not self._expiry_is_due:
            self._expiry_is_due = True
            self._call_later(max(0.1, oldest.expires_at - self._clock()), self._expiry)

    def _expiry(self) -> None:
        self._expiry_is_due = False
        self._expire()
        self._expect_expiry()


def is_an_answer(stream: ResponseStream) -> bool:
    """Whether a repeated request gets this end again. A refusal or a missing worker may go better
    next time."""
    if stream.error is None:
        return not stream.cancelled
    return stream.error.status == 500
