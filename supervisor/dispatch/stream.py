"""The reader's end of a request, as `Dispatcher.submit` returns it.

A stream holds no text. It remembers how far it has read in each sequence's log. An idle reader
costs nothing; a slow reader receives the accumulated text in one event. A request with several
readers, or with one that resumes, is read through an observer (`durable.py`).
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from msgspec import Struct, structs

from gpufc.errors import EngineCrashed, RequestError
from gpufc.protocol import FinishReason
from supervisor.answers.parser import Parser
from supervisor.answers.parts import BEGUN, Ended, Part
from supervisor.answers.whole import WholeAnswer, whole_answer
from supervisor.dispatch.ledger import Outcome
from supervisor.dispatch.logprobs import LogprobsReader
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream_log import StreamLog
from supervisor.dispatch.timings import Timings


class Position(Struct, frozen=True, order=True, gc=False):
    """How much of a durable request one reader has: all of the first `marks` entries in the order
    of its texts, and the first `parts` parts of the entry after them."""

    marks: int
    parts: int = 0


class StreamEvent(Struct, frozen=True, gc=False):
    """The parts that one choice gained since its last event, at least one.

    `position` is the reader's position after the event; only a durable request has positions.
    """

    index: int
    parts: Sequence[Part]
    position: Position | None = None


class Usage(Struct, frozen=True):
    """Tokens, each counted once even if it was replayed. `cached` is a part of `prompt`, an end
    token a part of `completion`."""

    prompt: int
    cached: int
    completion: int


class StreamObserver(Protocol):
    """Is told of all progress at once, whether or not a reader reads."""

    def gained(self, index: int) -> None:
        """The choice's log has new text, or its end."""
        ...

    def ended(self) -> None:
        """The request has ended. May be called more than once."""
        ...


class Wakeup:
    """One reader's wait for news. A wake-up without a wait in progress is not remembered.

    There is one wait for each token, so the timer outlives the waits. It is not moved with each
    wait: when it is due and the wait in progress ends later, it is set again.
    """

    __slots__ = ("_deadline", "_due", "_loop", "_timer", "_waiter")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # both in the loop's seconds; infinite without a timer and without a time limit
        self._due = math.inf
        self._deadline = math.inf

    def after(self, timeout_s: float) -> float:
        """The deadline that is `timeout_s` from now."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time() + timeout_s

    async def wait_until(self, deadline: float) -> None:
        """Return when `wake` is called, or at `deadline` (infinite for never)."""
        loop = self._loop or asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        self._deadline = deadline
        if deadline < self._due:
            self._set_timer(loop)
        try:
            await waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """End the wait in progress, if there is one."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def rest(self) -> None:
        """Drop the timer: no further wait is expected."""
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


class LogParser:
    """One reader's parser of one log, made when there is something to read. Implements `Parser`.

    It adds to the parser's parts the facts that only the log has.
    """

    __slots__ = ("_log", "_logprobs", "_parser")

    def __init__(self, log: StreamLog) -> None:
        self._log = log
        self._logprobs = LogprobsReader(log) if log.request.logprobs is not None else None
        self._parser: Parser | None = None

    def feed(self, text: str) -> Sequence[Part]:
        parser = self._parser or self._made()
        if self._logprobs is None:
            return parser.feed(text)
        logprobs = self._logprobs.read(len(text))
        return (*(() if logprobs is None else (logprobs,)), *parser.feed(text))

    def end(self, reason: FinishReason) -> Sequence[Part]:
        parts = (self._parser or self._made()).end(reason)
        stop = self._log.stop
        if stop is not None:
            parts = [
                structs.replace(part, stop=stop) if isinstance(part, Ended) else part
                for part in parts
            ]
        logprobs = None if self._logprobs is None else self._logprobs.end()
        return parts if logprobs is None else (logprobs, *parts)

    def _made(self) -> Parser:
        parser = self._parser = self._log.reading.new_parser()
        return parser


class OnAttention(Protocol):
    def __call__(self, stream: "ResponseStream", *, attended: bool) -> None: ...


def _ignore_attention(stream: "ResponseStream", *, attended: bool) -> None:
    """For a stream without a place in an admission."""


class ResponseStream:
    """One request's events, for one reader in the event loop.

    It ends exactly once: with every choice finished, with an error, or by `cancel`.
    """

    def __init__(
        self,
        request: GenerationRequest,
        logs: Sequence[StreamLog],
        *,
        on_cancel: Callable[["ResponseStream"], None],
        on_attention: OnAttention = _ignore_attention,
        fingerprint: Callable[[], str | None] = lambda: None,
        submitted_at: float = 0.0,
    ) -> None:
        self.request = request
        self.logs = tuple(logs)
        self.timings = Timings(submitted_at)
        self.cancelled = False
        self.error: RequestError | None = None
        self._on_cancel = on_cancel
        self._on_attention = on_attention
        self._fingerprint = fingerprint
        self._read = [0] * len(self.logs)
        self._parsers = [LogParser(log) for log in self.logs]
        self._news: dict[int, None] = {}  # choices with unread text or end, in order of arrival
        self._unfinished = len(self.logs)  # choices with an end that has not been read
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
        """The model's fingerprint, once a worker has loaded it."""
        return self._fingerprint()

    @property
    def n_replays(self) -> int:
        """How often its sequences have gone on with another worker."""
        return sum(max(0, len(log.epochs) - 1) for log in self.logs)

    @property
    def usage(self) -> Usage:
        """The tokens so far; complete when `done`."""
        firsts = [log for log in self.logs if log.choice == 0]
        return Usage(
            prompt=sum(len(log.prompt_tokens or ()) for log in firsts),
            cached=sum(log.n_cached or 0 for log in firsts),
            completion=sum(log.n_generated for log in self.logs),
        )

    def usage_of(self, index: int) -> Usage:
        """The tokens of one choice so far, its prompt's included."""
        log = self.logs[index]
        return Usage(len(log.prompt_tokens or ()), log.n_cached or 0, log.n_generated)

    def tokens_of(self, index: int) -> tuple[int, ...]:
        """The ids that one choice has generated so far, those of a stop string included."""
        return tuple(self.logs[index].tokens)

    @property
    def outcome(self) -> Outcome:
        """How it ended. Defined once its last sequence has left the group."""
        if self.cancelled:
            return Outcome.CANCELLED
        if self.error is None:
            return Outcome.SUCCEEDED
        if isinstance(self.error, EngineCrashed):
            return Outcome.LOST
        never_ran = not any(log.epochs for log in self.logs)
        return Outcome.REJECTED if never_ran and self.error.status < 500 else Outcome.FAILED

    @property
    def end_reason(self) -> str:
        """The error's code, or `length` where any choice ended by it, else `stop`. Defined when
        `outcome` is."""
        if self.error is not None:
            return self.error.code
        is_cut = any(log.finish is FinishReason.LENGTH for log in self.logs)
        return FinishReason.LENGTH if is_cut else FinishReason.STOP

    async def next(self, timeout_s: float) -> list[StreamEvent] | None:
        """Wait for the events since the last call, at most one for each choice.

        None after `timeout_s` without any. An empty list after the end. Raises the request's
        `RequestError` once everything before it has been read. Cancelling the call loses nothing.
        """
        deadline = None
        while True:
            if not self._news:
                if self._at_end():
                    break
                deadline = deadline or self._wakeup.after(timeout_s)
                await self._wakeup.wait_until(deadline)
                if not self._news:
                    break
            # a parser may hold back all that came: then the wait goes on
            if events := self._take():
                return events
        if self.error is not None:
            raise self.error.again()
        return [] if self._at_end() else None

    async def complete(self) -> list[WholeAnswer]:
        """Wait for the end; each choice's whole answer. Raises the request's `RequestError`."""
        self._wants_all = True
        while not self.ended:
            await self._wakeup.wait_until(math.inf)
        answers = self.answers()
        self._news.clear()
        self._unfinished = 0
        return answers

    def answers(self) -> list[WholeAnswer]:
        """Each choice's whole answer, after the end. Raises the request's `RequestError`."""
        if self.error is not None:
            raise self.error.again()
        return [
            whole_answer(log.texts, log.finish, partial(LogParser, log))
            for log in self.logs
            if log.finish is not None
        ]

    def attend(self, attended: bool) -> None:
        """Whether any client reads it. Other sequences go before those of an abandoned request."""
        self._on_attention(self, attended=attended)

    def cancel(self, error: RequestError | None = None) -> None:
        """End the request: its reader has left, or gets `error`. May be called at any time, also
        after the end."""
        self._wakeup.rest()
        if not self.cancelled and self.error is None and not self._all_ended():
            self.cancelled = True
            self.error = error
            self._on_cancel(self)
            self._wakeup.wake()
            if self._observer is not None:
                self._observer.ended()

    def observe(self, observer: StreamObserver) -> None:
        """Tell the observer of all progress from now on. Right after `submit`, that is all."""
        self._observer = observer
        if self.ended:
            observer.ended()

    # called by the group

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
        """End the whole request with an error. Only the first error counts."""
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
            log, parser = self.logs[index], self._parsers[index]
            start, texts = self._read[index], log.texts
            self._read[index] = len(texts)
            parts = parser.feed(texts[start] if start + 1 == len(texts) else "".join(texts[start:]))
            if start == 0:
                parts = (BEGUN, *parts)
            if log.finish is not None:
                self._unfinished -= 1
                parts = (*parts, *parser.end(log.finish))
            if parts:
                events.append(StreamEvent(index, parts))
        self._news.clear()
        return events
