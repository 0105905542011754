"""Brings the gains of this front's durable requests into the store, and their ends."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator

from gpufc.config import CellsConfig
from gpufc.errors import RequestError
from gpufc.ids import new_request_id
from supervisor.cells import journal
from supervisor.cells.outbox import Entry, Outbox
from supervisor.cells.port import Away, Behind, Refused, Store, log_subject, request_subject
from supervisor.cells.records import Closed, Failure, Finished
from supervisor.cells.standing import (
    Action,
    GiveUp,
    GoAlone,
    Looked,
    NoAnswer,
    Rejoin,
    Standing,
    State,
    Stored,
)
from supervisor.cells.standing import Refused as WasRefused
from supervisor.cells.state import Sent, gain_since
from supervisor.dispatch.durable import DurableRequest

logger = logging.getLogger(__name__)

RETRY_S = 0.2
"""Between two attempts while the store does not answer."""

BEHIND_S = 5.0
"""A store that is behind for longer has lost records. A new leader knows its own in less."""

RENEW_S = 3600.0
"""Far below the age at which the store forgets records."""

TRIM_BATCHES = 1000
"""A log is cut after so many batches."""


class Writer:
    """One front's. In the event loop; `run` is its task.

    A run that was fenced is followed by a new one, so that later requests are durable again.
    """

    def __init__(self, store: Store, config: CellsConfig) -> None:
        self.n_batches = 0
        self.n_fenced = 0
        self.settled: Callable[[str], None] = lambda _name: None
        """Is called with the name of a request whose end is stored, or whose records are gone."""
        self._store = store
        self._config = config
        self._woken = asyncio.Event()
        self._finished: deque[tuple[float, str, int]] = deque()
        self._begin()

    def _begin(self) -> None:
        self.run_id = new_request_id()
        self.outbox = Outbox(self.run_id, self._woken.set)
        self.standing = Standing(self._config.cells_pause_s)
        self._last = 0
        self._wrote_at = time.monotonic()
        self._n_untrimmed = 0
        self._behind_since: float | None = None

    @property
    def answers(self) -> bool:
        """Whether the store has taken all records of late, as far as it was asked."""
        return self._store.is_connected and self.standing.state is State.OWNER

    def renew(self) -> None:
        """Begin a new run after a long time without requests: the records of the old one's log may
        have expired, and its next one would be refused."""
        is_old = time.monotonic() - self._wrote_at > RENEW_S
        if self._last and is_old and not len(self.outbox) and not self.outbox.has_work:
            self._begin()

    def follow(self, name: str, request: DurableRequest, last: int) -> None:
        """Take a request in. `last` is the last message of its subject."""
        self.outbox.follow(name, request, last, self._last)

    def forget(self, name: str) -> None:
        """Forget the records of a request that has ended here, as soon as the store answers: it has
        not. New requests do not count on the store before."""
        self.outbox.dropped.append((name, None))
        self._do(self.standing.handle(NoAnswer(time.monotonic())))
        self._woken.set()

    def outdated(self, ended_before: float) -> Iterator[tuple[str, int]]:
        """The answers that were stored before a time, each once: a name and its last message."""
        while self._finished and self._finished[0][0] < ended_before:
            yield self._finished.popleft()[1:]

    def look(self, now: float) -> None:
        """Time has passed."""
        self._do(self.standing.handle(Looked(now)))

    async def run(self) -> None:
        """Write for ever."""
        batch_s = self._config.cells_batch_s
        while True:
            await self._woken.wait()
            began = time.monotonic()
            if await self._write():
                await asyncio.sleep(max(0.0, began + batch_s - time.monotonic()))
            else:
                await asyncio.sleep(RETRY_S)

    async def leave(self, timeout_s: float) -> None:
        """Write what is left and leave the requests to other fronts. Clients that are here have to
        ask there. `run` has been cancelled before."""
        outbox, run = self.outbox, self.run_id
        try:
            async with asyncio.timeout(timeout_s):
                # an attempt may be in flight, and the requests go on meanwhile
                if await self._write() and await self._write() and self.run_id == run:
                    outbox.move()
                    if self._last:
                        closed = Closed(run)
                        await journal.append(self._store, log_subject(run), closed, self._last)
        except (TimeoutError, Away, Refused) as err:
            logger.warning("cells_left_late requests=%d error=%s", len(outbox), err)
        outbox.move()  # else the others go on once the lease has ended

    async def _write(self) -> bool:
        """Store a batch and the ends that there are. False if the store does not answer."""
        outbox, had_work = self.outbox, self.outbox.has_work
        self._woken.clear()
        try:
            while outbox.dropped:  # first, as the store may be full
                name, last = outbox.dropped[0]
                await self._purge(name, last)
                del outbox.dropped[0]  # there may be others behind it by now
                self.settled(name)
            await self._trim(outbox)
            if (batch := outbox.take()) is not None:
                subject = log_subject(outbox.run)
                self._last = await journal.append(self._store, subject, batch, self._last)
                self.n_batches += 1
                self._wrote_at = time.monotonic()
                outbox.stored()
            for entry in list(outbox.finishing.values()):
                await self._finish(outbox, entry)
        except Refused as err:
            self._be_fenced(err)
            return True
        except Away as err:
            if self._has_lost(err):
                self._be_fenced(err)
                return True
            if self.standing.state is State.OWNER:
                logger.warning("cells_away requests=%d error=%s", len(outbox), err)
            self._woken.set()
            self._do(self.standing.handle(NoAnswer(time.monotonic())))
            return False
        self._behind_since = None
        if had_work:
            self._do(self.standing.handle(Stored()))
        if outbox.has_work:
            self._woken.set()
        return True

    def _be_fenced(self, error: Exception) -> None:
        requests = len(self.outbox)
        logger.error("cells_fenced run=%s requests=%d error=%s", self.run_id, requests, error)
        self.n_fenced += 1
        self._do(self.standing.handle(WasRefused()))

    def _has_lost(self, error: Away) -> bool:
        """Whether the store has been behind for so long that it has lost records."""
        now = time.monotonic()
        if not isinstance(error, Behind):
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        return self._behind_since is not None and now - self._behind_since > BEHIND_S

    async def _finish(self, outbox: Outbox, entry: Entry) -> None:
        if entry.record is None:
            error = entry.request.stream.error
            entry.record = Finished(
                time.time(),
                gain_since(entry.name, entry.request, Sent()),
                None if error is None else _failure(error),
            )
        try:
            subject = request_subject(entry.name)
            last = await journal.append(self._store, subject, entry.record, entry.last)
        except Refused:  # it was deleted, or another front has claimed it
            outbox.lost(entry)
        else:
            self._finished.append((time.monotonic(), entry.name, last))
            outbox.finished(entry)
            self.settled(entry.name)

    async def _purge(self, name: str, last: int | None) -> None:
        """Forget a request's records up to `last`, None for all. New ones of its key stay."""
        before = None if last is None else last + 1
        await self._store.purge(request_subject(name), before)

    async def _trim(self, outbox: Outbox) -> None:
        """Forget batches that no running request needs."""
        self._n_untrimmed += 1
        if self._n_untrimmed >= TRIM_BATCHES:
            before = min(self._last, outbox.needs_from)
            await self._store.purge(log_subject(outbox.run), before)
            self._n_untrimmed = 0

    def _do(self, action: Action | None) -> None:
        match action:
            case GoAlone():
                logger.error("cells_alone requests=%d: NATS does not answer", len(self.outbox))
                self.outbox.go_alone()
            case Rejoin():
                logger.info("cells_rejoined requests=%d", len(self.outbox))
                self.outbox.rejoin()
            case GiveUp():
                unread = list(self.outbox.give_up())
                self._begin()
                for request in unread:  # the other front computes it
                    request.stream.cancel()
            case None:
                pass


def _failure(error: RequestError) -> Failure:
    return Failure(error.code, error.message, error.param)
