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


class _Shares:
    """How much each principal has, running and finished together, and how much of it is finished.
    No entry of `_own` is 0."""

    def __init__(self) -> None:
        self.total = 0
        self.finished = Counter[str]()
        self._own = Counter[str]()

    def add(self, principal: str, amount: int) -> None:
        """The principal has so much more, or less."""
        self.total += amount
        self._own[principal] += amount
        if not self._own[principal]:
            del self._own[principal], self.finished[principal]

    def has_room(self, principal: str, amount: int, limit: int) -> bool:
        """Whether so much more fits, once all has been dropped that the principal may drop: all of
        its own, and of another principal as much as leaves it less than the principal has then."""
        over = self.total + amount - limit
        if over <= 0:
            return True
        own = self._own[principal] + amount
        return over <= sum(
            self.finished[one]
            if one == principal
            else min(self.finished[one], self._own[one] - own + 1)
            for one in self._droppable(principal, amount)
        )

    def most_droppable(self, principal: str) -> str | None:
        """Of those with finished requests that the principal may drop, the one with the most."""
        return max(self._droppable(principal), key=self._own.__getitem__, default=None)

    def _droppable(self, principal: str, amount: int = 0) -> list[str]:
        """The principal itself, and those with at least as much as it has then."""
        own = self._own[principal] + amount
        return [
            one
            for one, has in self._own.items()
            if self.finished[one] and (one == principal or has >= own)
        ]


class DurableRequests:
    """The durable requests that are kept: all running ones, and finished ones within the limits.

    Invariants: a key is in at most one of `_running` and `_finished`; `_finished` is in the order
    of the ends. Where both together are beyond the limits, finished requests of the principal that
    has grown and of those with at least as much are dropped, the oldest of the one with the most
    first: neither finished nor running requests drop the answers of a principal with less. So
    running ones that grow may exceed the limits. A dropped request stays readable for its current
    readers.
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
        self._number, self._bytes = _Shares(), _Shares()
        self._expiry_is_due = False

    def __len__(self) -> int:
        return len(self._running) + len(self._finished)

    @property
    def n_bytes(self) -> int:
        """An estimate of all their memory, logs included."""
        return self._bytes.total

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

    def require_room(self, principal: str, n_bytes: int, n_sequences: int) -> None:
        """Check that a principal's request with a body of that size fits beside the running ones
        and the answers that it may not drop.

        Raises `RequestTooLarge` or `Overloaded`.
        """
        n_bytes += SEQUENCE_BYTES * n_sequences
        if n_bytes > self._limits.max_durable_bytes:
            raise RequestTooLarge("The request is too large to be durable")
        limits = self._limits
        has_place = self._number.has_room(principal, 1, limits.max_durable_requests)
        if not (has_place and self._bytes.has_room(principal, n_bytes, limits.max_durable_bytes)):
            raise Overloaded("Too many durable requests are kept", retry_after_s=RETRY_AFTER_S)

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
        self._number.add(key.principal, 1)
        self.grew(added, n_bytes)
        return added

    def grew(self, request: DurableRequest, n_bytes: int) -> None:
        """A running request takes that many bytes more."""
        principal = request.key.principal
        self._bytes.add(principal, n_bytes)
        self._shrink(principal)

    def ended(self, request: DurableRequest) -> None:
        """A running request has ended. It is kept if its end is an answer."""
        key, n_bytes = request.key, request.n_bytes
        del self._running[key]
        if not is_an_answer(request.stream):
            self._forget(key, n_bytes)
            return
        request.expires_at = self._clock() + self._limits.durable_window_s
        self._finished[key] = request
        self._number.finished[key.principal] += 1
        self._bytes.finished[key.principal] += n_bytes
        self._shrink(key.principal)
        self._expect_expiry()

    def _shrink(self, principal: str) -> None:
        """Drop finished requests until the limits hold, which this principal has exceeded."""
        limits = self._limits
        for shares, limit in (
            (self._number, limits.max_durable_requests),
            (self._bytes, limits.max_durable_bytes),
        ):
            while shares.total > limit and (most := shares.most_droppable(principal)) is not None:
                self._drop(next(key for key in self._finished if key.principal == most))

    def _drop(self, key: DurableKey) -> bool:
        dropped = self._finished.pop(key, None)
        if dropped is None:
            return False
        self._number.finished[key.principal] -= 1
        self._bytes.finished[key.principal] -= dropped.n_bytes
        self._forget(key, dropped.n_bytes)
        return True

    def _forget(self, key: DurableKey, n_bytes: int) -> None:
        self._number.add(key.principal, -1)
        self._bytes.add(key.principal, -n_bytes)

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
