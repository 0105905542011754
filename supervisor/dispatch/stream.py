"""What `submit` returns: the reader's end of a request.

It holds no text. It remembers how far it has read in each sequence's log, so that a reader who
does not read costs nothing, and one who lags gets what has gathered in one piece. Requests with
several readers, or with one who comes back, are read through an observer (`durable.py`).
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from gpufc.errors import EngineCrashed, RequestError
from gpufc.protocol import FinishReason
from supervisor.dispatch.ledger import Outcome
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream_log import StreamLog


class StreamEvent(Struct, frozen=True):
    """What one choice gained since the last event of it. `n_tokens` is its total so far,
    `position` its number in the order of a durable request, 0 in any other."""

    index: int
    text: str
    n_tokens: int
    finish: FinishReason | None
    position: int = 0


class Usage(Struct, frozen=True):
    """Tokens, each counted once whatever was replayed. `cached` is a part of `prompt`."""

    prompt: int
    cached: int
    completion: int


class StreamObserver(Protocol):
    """Who is told of everything at once, whether or not anybody reads."""

    def gained(self, index: int) -> None:
        """The choice's log has new text, or its end."""
        ...

    def ended(self) -> None:
        """Nothing more will come. May be told more than once."""
        ...


class Wakeup:
    """What one reader waits on until there is news. Nothing is remembered while nobody waits.

    Its timer outlives the waits, which there are one of for each token: it is not moved with each
    of them, but looks when it is due whether the wait in progress is over, and else goes on.
    """

    __slots__ = ("_deadline", "_due", "_timer", "_waiter")

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        """When the timer is; infinite without one. In the loop's seconds, as `_deadline`."""
        self._deadline = math.inf

    async def wait(self, timeout_s: float | None) -> None:
        """Until `wake` is called, or for `timeout_s`."""
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        if timeout_s is None:
            self._deadline = math.inf
        else:
            self._deadline = loop.time() + timeout_s
            if self._deadline < self._due:
                self._set_timer(loop)
        try:
            await waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let the reader go on, if it waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def rest(self) -> None:
        """Nobody is going to wait any more, as far as is known."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._due = None, math.inf

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self.rest()
        self._due = self._deadline
        self._timer = loop.call_at(self._due, self._is_due, loop)

    def _is_due(self, loop: asyncio.AbstractEventLoop) -> None:
        is_over, self._timer, self._due = self._deadline <= self._due, None, math.inf
        if is_over:
            self.wake()
        elif self._waiter is not None and self._deadline < math.inf:
            self._set_timer(loop)


class ResponseStream:
    """One request's events, for one reader in the event loop.

    Ends exactly once: with every choice finished, with an error, or by `cancel`.
    """

    def __init__(
        self,
        request: GenerationRequest,
        logs: Sequence[StreamLog],
        *,
        on_cancel: Callable[["ResponseStream"], None],
        fingerprint: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.request = request
        self.logs = tuple(logs)
        self.cancelled = False
        self.error: RequestError | None = None
        self._on_cancel = on_cancel
        self._fingerprint = fingerprint
        self._read = [0] * len(self.logs)
        self._news: dict[int, None] = {}  # choices with unread text or end, in order of arrival
        self._unfinished = len(self.logs)  # choices whose end has not been read
        self._wakeup = Wakeup()
        self._wants_all = False
        self._observer: StreamObserver | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come, read or not."""
        return self.error is not None or self._all_ended()

    @property
    def done(self) -> bool:
        """Whether everything has been read, the end included."""
        return self._unfinished == 0

    @property
    def fingerprint(self) -> str | None:
        """The model's fingerprint, once any worker has loaded it."""
        return self._fingerprint()

    @property
    def usage(self) -> Usage:
        """As far as it is known now; whole when `done`."""
        firsts = [log for log in self.logs if log.choice == 0]
        return Usage(
            prompt=sum(len(log.prompt_tokens or ()) for log in firsts),
            cached=sum(log.n_cached or 0 for log in firsts),
            completion=sum(len(log.tokens) for log in self.logs),
        )

    @property
    def outcome(self) -> Outcome:
        """How it ended, once none of its sequences is left."""
        if self.cancelled:
            return Outcome.CANCELLED
        if self.error is None:
            return Outcome.SUCCEEDED
        if isinstance(self.error, EngineCrashed):
            return Outcome.LOST
        never_ran = not any(log.epochs for log in self.logs)
        return Outcome.REJECTED if never_ran and self.error.status < 500 else Outcome.FAILED

    async def next(self, timeout_s: float) -> list[StreamEvent] | None:
        """The events since the last call, at most one for each choice; waits for the first one.

        None after `timeout_s` without any. Raises the request's `RequestError` once all that came
        before it has been read. An empty list after the end. Cancelling the call loses nothing.
        """
        if not self._news and not self._at_end():
            await self._wakeup.wait(timeout_s)
        if self._news:
            return self._take()
        if self.error is not None:
            raise self.error
        return [] if self._at_end() else None

    async def complete(self) -> list[str]:
        """Wait for the end; the whole text of each choice. Raises the request's `RequestError`."""
        self._wants_all = True
        while not self.ended:
            await self._wakeup.wait(None)
        if self.error is not None:
            raise self.error
        self._take()
        return ["".join(log.texts) for log in self.logs]

    def cancel(self) -> None:
        """Nobody reads any more. May be called at any time, also after the end."""
        self._wakeup.rest()
        if not self.cancelled and self.error is None and not self._all_ended():
            self.cancelled = True
            self._on_cancel(self)
            self._wakeup.wake()
            if self._observer is not None:
                self._observer.ended()

    def observe(self, observer: StreamObserver) -> None:
        """Tell it of everything from now on; right after `submit`, that is everything."""
        self._observer = observer
        if self.ended:
            observer.ended()

    # the group's side

    def notify(self, index: int) -> None:
        """The choice's log has new text, or its end."""
        self._news[index] = None
        if not self._wants_all or self.logs[index].ended:
            self._wakeup.wake()
        if self._observer is not None:
            self._observer.gained(index)
            if self.ended:
                self._observer.ended()

    def fail(self, error: RequestError) -> None:
        """The whole request ends with an error. The first one counts."""
        if self.error is None:
            self.error = error
            self._wakeup.wake()
            if self._observer is not None:
                self._observer.ended()

    def _at_end(self) -> bool:
        return self.error is not None or self.cancelled or self._unfinished == 0

    def _all_ended(self) -> bool:
        return self.cancelled or all(log.ended for log in self.logs)

    def _take(self) -> list[StreamEvent]:
        events = []
        for index in self._news:
            log = self.logs[index]
            start, texts = self._read[index], log.texts
            self._read[index] = len(texts)
            text = texts[start] if start + 1 == len(texts) else "".join(texts[start:])
            events.append(StreamEvent(index, text, len(log.tokens), log.finish))
            if log.finish is not None:
                self._unfinished -= 1
        self._news.clear()
        return events
