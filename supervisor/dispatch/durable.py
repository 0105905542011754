"""Requests that outlive their clients: the order of what each produced, and which are kept.

Pure. The text stays where it is, in the stream logs. What is added is the order in which the
choices gained it, eight bytes for each piece. A number in that order, a *position*, says exactly
what a reader has, however many choices there are and however pieces were joined for it: any reader
can go on from any position that another one was told, while the request runs or after. At position
0 nothing is read; each later one up to n tells that a choice has begun, has more text, or has
finished; n + 1 is what comes after everything: usage, or the request's error.
"""

import sys
from array import array
from collections.abc import Callable

from msgspec import Struct

from gpufc.config import LimitsConfig
from gpufc.errors import InvalidRequest, Overloaded, RequestTooLarge
from supervisor.dispatch.stream import ResponseStream, StreamEvent

BEGUN = 0
FINISHED = 2**32 - 1

SEQUENCE_BYTES = 4096
"""About what a sequence takes in memory besides prompt and text."""

PIECE_BYTES = 32
"""About what a piece of text takes besides itself: places in lists, its tokens, its position."""

PROMPT_TOKEN_BYTES = 40

RETRY_AFTER_S = 5.0


class DurableKey(Struct, frozen=True):
    """What a client calls its request. Another principal's equal key is another key."""

    principal: str
    key: str


class DurableRequest:
    """One durable request, running or finished. Implements `StreamObserver`; only its stream's
    calls change it, and the store what is the store's.

    Invariant: `choices[i]` and `marks[i]` tell of position i + 1 which choice it is about and how
    many of the texts in its log are read by then, or that it has BEGUN or FINISHED. They are only
    ever appended to, and never after the end.
    """

    def __init__(
        self,
        key: DurableKey,
        digest: bytes,
        stream: ResponseStream,
        n_bytes: int,
        store: "DurableRequests",
    ) -> None:
        self.key = key
        self.digest = digest
        self.stream = stream
        self.n_bytes = n_bytes
        """An estimate of the memory that it takes, logs and all."""
        self.choices = array("I")
        self.marks = array("I")
        self.is_over = False
        self.expires_at = 0.0
        """When a finished one is forgotten: the store's."""
        self.watchers: set[Callable[[], None]] = set()
        """Called after each change, and at the end."""
        self._store = store
        self._n_texts = [0] * len(stream.logs)
        self._begun: set[int] = set()
        self._fingerprint: str | None = None

    @property
    def tag(self) -> str:
        """Tells this generation from another one under the same key, before or after it."""
        return self.stream.request.id[:8]

    @property
    def closing(self) -> int:
        """The position after everything, if it is over."""
        return len(self.marks) + 1

    @property
    def fingerprint(self) -> str | None:
        """The model's; the first one known stays the answer, whatever is served later."""
        if self._fingerprint is None:
            self._fingerprint = self.stream.fingerprint
        return self._fingerprint

    def gained(self, index: int) -> None:
        log = self.stream.logs[index]
        n_bytes = 0
        if index not in self._begun:
            self._begun.add(index)
            self._note(index, BEGUN)
            if log.choice == 0:  # choices share their prompt
                n_bytes += PROMPT_TOKEN_BYTES * len(log.prompt_tokens or ())
        new = log.texts[self._n_texts[index] :]
        if any(new):
            self._n_texts[index] = len(log.texts)
            self._note(index, len(log.texts))
            n_bytes += sum(PIECE_BYTES + sys.getsizeof(text) for text in new)
        if log.finish is not None:
            self._note(index, FINISHED)
        self.n_bytes += n_bytes
        self._store.grew(n_bytes)
        self._tell()

    def ended(self) -> None:
        if not self.is_over:
            self.is_over = True
            _ = self.fingerprint
            self._store.ended(self)
            self._tell()

    def _note(self, index: int, mark: int) -> None:
        self.choices.append(index)
        self.marks.append(mark)

    def _tell(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()


class Cursor:
    """How far one reader has come in a durable request. It alone moves it."""

    def __init__(self, request: DurableRequest, position: int = 0) -> None:
        """Raises `InvalidRequest` for a position that nobody can have been told."""
        known = request.closing if request.is_over else len(request.marks)
        if not 0 <= position <= known:
            raise InvalidRequest("There is no such event in this stream", param="Last-Event-ID")
        self.position = position
        self.begun: list[int] = []
        """The choices that the reader knew already when it came."""
        self._request = request
        self._read = [0] * len(request.stream.logs)
        for index, mark in zip(request.choices[:position], request.marks[:position], strict=True):
            if mark == BEGUN:
                self.begun.append(index)
            elif mark != FINISHED:
                self._read[index] = mark

    @property
    def has_news(self) -> bool:
        """Whether `take` would bring something."""
        return self.position < len(self._request.marks)

    @property
    def is_closed(self) -> bool:
        """Whether the reader has even what comes after everything."""
        return self._request.is_over and self.position == self._request.closing

    def take(self, limit: int) -> list[StreamEvent]:
        """The next events, at most `limit`; texts of one choice in a row are one event."""
        events: list[StreamEvent] = []
        while self.has_news and len(events) < limit:
            events.append(self._next())
        return events

    def _next(self) -> StreamEvent:
        choices, marks = self._request.choices, self._request.marks
        index, mark = choices[self.position], marks[self.position]
        log = self._request.stream.logs[index]
        self.position += 1
        text, finish = "", None
        if mark == FINISHED:
            finish = log.finish
        elif mark != BEGUN:
            while self.has_news and choices[self.position] == index:
                if marks[self.position] == FINISHED:
                    break
                mark = marks[self.position]
                self.position += 1
            text = "".join(log.texts[self._read[index] : mark])
            self._read[index] = mark
        return StreamEvent(index, text, len(log.tokens), finish, self.position)


class DurableRequests:
    """Which durable requests are kept: all that run, finished ones for a while and as they fit.

    Invariants: a key stands in one of `_running` and `_finished`, the latter in order of their
    ends; finished ones never make both together more than the limits allow. Dropping a request
    takes nothing from those who read it just then.
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
        """An estimate of the memory that they take, logs and all."""
        return self._running_bytes + self._finished_bytes

    def find(self, key: DurableKey, digest: bytes) -> DurableRequest | None:
        """The request of that key. Raises `InvalidRequest` if it was another one."""
        self._expire()
        found = self._running.get(key) or self._finished.get(key)
        if found is not None and found.digest != digest:
            raise InvalidRequest(
                "This Idempotency-Key belongs to another request; a new request needs a new key",
                param="Idempotency-Key",
            )
        return found

    def require_room(self, n_bytes: int, n_sequences: int) -> None:
        """Whether there is room beside those that run for a request with a body of that size.

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
        """Keep a request that was just submitted, whose body has that size."""
        n_bytes += SEQUENCE_BYTES * len(stream.logs)
        added = self._running[key] = DurableRequest(key, digest, stream, n_bytes, self)
        self.grew(n_bytes)
        stream.observe(added)
        return added

    def grew(self, n_bytes: int) -> None:
        """A running request takes that much more."""
        self._running_bytes += n_bytes
        self._shrink()

    def ended(self, request: DurableRequest) -> None:
        """It has its end, and is kept from now on if that end is an answer."""
        del self._running[request.key]
        self._running_bytes -= request.n_bytes
        if not _is_an_answer(request.stream):
            return
        request.expires_at = self._clock() + self._limits.durable_window_s
        self._finished[request.key] = request
        self._finished_bytes += request.n_bytes
        self._shrink()
        self._expect_expiry()

    def _shrink(self) -> None:
        """Drop finished requests, the oldest first, until the limits hold."""
        limits = self._limits
        while self._finished and (
            len(self) > limits.max_durable_requests or self.n_bytes > limits.max_durable_bytes
        ):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        dropped = self._finished.pop(next(iter(self._finished)))
        self._finished_bytes -= dropped.n_bytes

    def _oldest(self) -> DurableRequest | None:
        return next(iter(self._finished.values()), None)

    def _expire(self) -> None:
        now = self._clock()
        while (oldest := self._oldest()) is not None and oldest.expires_at <= now:
            self._drop_oldest()

    def _expect_expiry(self) -> None:
        """See to it that the oldest is forgotten in time even if nobody asks any more."""
        oldest = self._oldest()
        if oldest is not None and not self._expiry_is_due:
            self._expiry_is_due = True
            self._call_later(max(0.1, oldest.expires_at - self._clock()), self._expiry)

    def _expiry(self) -> None:
        self._expiry_is_due = False
        self._expire()
        self._expect_expiry()


def _is_an_answer(stream: ResponseStream) -> bool:
    """Whether that end is to be given again. What may go better next time is not: a refusal, or
    there being no worker."""
    if stream.error is None:
        return not stream.cancelled
    return stream.error.status == 500
