"""One front among several that go on with each other's durable requests."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine

from msgspec import Struct

from gpufc.config import CellsConfig, LimitsConfig
from gpufc.errors import InternalError, InvalidRequest, LinkError, Overloaded, RequestError
from gpufc.ids import new_request_id
from supervisor.cells import journal
from supervisor.cells.port import Away, Refused, Store, request_subject
from supervisor.cells.records import VERSION, Accepted, Claimed, Life, Opened, name_of
from supervisor.cells.reviving import AccountOf, Reviving, no_account
from supervisor.cells.state import Known
from supervisor.cells.turns import Turns
from supervisor.cells.watcher import Orphan, Watcher
from supervisor.cells.writer import Writer
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.durable import DurableKey, DurableRequest
from supervisor.dispatch.durable_ask import DurableAsk
from supervisor.dispatch.durable_store import DurableRequests
from supervisor.dispatch.port import ServedFleet
from supervisor.dispatch.request import ReadingOf, plain

logger = logging.getLogger(__name__)

LEAVE_S = 3.0
"""For the last records of a front that ends."""

CONNECTING_S = 0.2
"""Between two looks for a connection."""

WAIT_LEASES = 3.0
"""A client waits so many leases for a request of a front that is silent."""


class CellsStatus(Struct, frozen=True, kw_only=True):
    """The document in `/stats`. `state` is that of `standing.State`; `others` are fronts that are
    heard, `replicated` requests run here, `orphans` wait for a front that can go on with them."""

    connected: bool
    state: str
    run: str
    others: int
    replicated: int
    orphans: int
    batches_total: int
    taken_over_total: int
    fenced_total: int
    local_total: int


class Cells:
    """Implements `context.Cells`. In the event loop, from `start` to `leave`."""

    def __init__(
        self,
        config: CellsConfig,
        limits: LimitsConfig,
        store: Store,
        dispatcher: Dispatcher,
        fleet: ServedFleet,
        durable: DurableRequests,
        account_of: AccountOf = no_account,
    ) -> None:
        """`account_of` gives the account of a key by its principal's name."""
        self._config = config
        self._limits = limits
        self._store = store
        self._dispatcher = dispatcher
        self._durable = durable
        self._writer = Writer(store, config)
        self._watcher = Watcher(
            store, self._writer, config.cells_lease_s, lambda: limits.durable_window_s
        )
        self._writer.settled = self._watcher.settled
        self._reviving = Reviving(dispatcher, fleet, durable, account_of)
        self._turns = Turns()
        self._tasks: list[asyncio.Task[None]] = []
        self._n_taken_over = 0
        self._n_local = 0

    def start(self) -> None:
        """Connect, and watch the other fronts. Returns at once."""
        self._store.start()
        self._tasks = [
            asyncio.create_task(_forever(self._writer.run)),
            asyncio.create_task(_forever(self._watch)),
            asyncio.create_task(_forever(self._beat)),
        ]

    async def leave(self) -> None:
        """Give the requests up to the other fronts, and end the connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks and self._store.is_connected:
            await self._writer.leave(LEAVE_S)
            self._watcher.say_goodbye()
        self._writer.outbox.move()  # readers get no text that is not stored
        self._tasks = []
        await self._store.close()

    def status(self) -> CellsStatus:
        writer, watcher = self._writer, self._watcher
        return CellsStatus(
            connected=self._store.is_connected,
            state=writer.standing.state.value,
            run=writer.run_id,
            others=watcher.leases.n_alive,
            replicated=len(writer.outbox),
            orphans=len(watcher.orphans),
            batches_total=writer.n_batches,
            taken_over_total=self._n_taken_over,
            fenced_total=writer.n_fenced,
            local_total=self._n_local,
        )

    # clients

    async def find_or_start(self, ask: DurableAsk) -> DurableRequest | None:
        async with self._turns.of(ask.key):
            found = self._durable.find(ask.key, ask.digest)
            if found is not None:
                return found
            self._writer.renew()
            if not self._writer.answers:
                return self._without_store(ask)
            try:
                return await self._found(ask) if not ask.starts else await self._started(ask)
            except Away as err:
                logger.warning("cells_unanswered error=%s", err)
                return self._without_store(ask)
            except LinkError as err:
                logger.error("cells_unreadable error=%s", err)
                raise InternalError("The records of this request cannot be read") from err

    async def forget(self, key: DurableKey, *, is_here: bool) -> bool:
        name = name_of(key)
        async with self._turns.of(key):
            try:
                messages = await self._store.read(request_subject(name))
                if messages:
                    await self._purge(name, messages[-1][0])
            except Away as err:
                if not is_here:
                    raise Overloaded("Other fronts cannot be asked now", retry_after_s=5.0) from err
                self._writer.forget(name)
        return is_here or bool(messages)

    async def _purge(self, name: str, last: int) -> None:
        """Forget a request's records up to a number, and no new ones of its key."""
        await self._store.purge(request_subject(name), last + 1)

    def _without_store(self, ask: DurableAsk) -> DurableRequest | None:
        """The request in this front only. None for a stream that is not here."""
        if not ask.starts:
            raise Overloaded("Other fronts cannot be asked for this stream now", retry_after_s=5.0)
        if self._config.cells_required:
            raise Overloaded(
                "Durable requests are refused while NATS does not answer", retry_after_s=5.0
            )
        wanted = ask.accept()
        ask.require_room(wanted)
        self._n_local += 1
        started = ask.start(wanted)
        # a record with the first tag and another seed may be stored, and another front runs it
        started.tags = [_fresh_tag()]
        return started

    async def _started(self, ask: DurableAsk) -> DurableRequest | None:
        """A new request, or the one that another front has under this key."""
        wanted = ask.accept()
        ask.require_room(wanted)
        run, name = self._writer.run_id, name_of(ask.key)
        opened = Opened(
            VERSION,
            run,
            ask.key.principal,
            ask.key.key,
            ask.digest,
            ask.n_bytes,
            ask.scope,
            wanted.reading is plain,
            Accepted.of(wanted),
        )
        while True:
            try:
                last = await journal.append(self._store, request_subject(name), opened, 0)
            except Refused:
                found = await self._found(ask)
                if found is not None:
                    return found
                continue  # it has been forgotten meanwhile
            try:
                started = ask.start(wanted)
            except RequestError:
                await self._purge(name, last)
                raise
            if run != self._writer.run_id:  # no reader has any event yet
                started.tags = []
            self._follow(name, started, last, run)
            return started

    async def _found(self, ask: DurableAsk) -> DurableRequest | None:
        """The request of the key as another front has left it. None if there is none. Waits for the
        end of that front's lease. Raises `Overloaded` if it lives, and `Away`."""
        name = name_of(ask.key)
        began = time.monotonic()
        while True:
            found = await journal.read_request(self._store, name)
            if found is None:
                return None
            life = found.life
            if life is None or self._is_outdated(life):
                await self._purge(name, found.last)
                return None
            if life.opened.digest != ask.digest:
                raise InvalidRequest(
                    "This Idempotency-Key belongs to another request; a new request needs a new"
                    " key",
                    param="Idempotency-Key",
                )
            if life.finished is not None:
                return self._reviving.finished(life, life.finished, ask.accept().reading)
            is_ours = life.runs[-1] == self._writer.run_id
            if is_ours and name not in self._watcher.orphans:  # it was begun here, and is not kept
                await self._purge(name, found.last)
                return None
            if is_ours or self._watcher.leases.is_closed(life.runs[-1]):
                known = await self._known(life, name)
                wanted = ask.accept()
                if self._reviving.must_load(life, known):
                    await self._reviving.load(life)
                    continue  # another front may have claimed it meanwhile
                self._reviving.require_fitting(life, known)
                self._reviving.require_room(life)
                claimed = await self._claim(name, life, known, found.last, wanted.reading)
                if claimed is not None:
                    return claimed
                continue
            await self._owner_settled(life.runs[-1], began)

    async def _owner_settled(self, run: str, began: float) -> None:
        """Return when a run may be closed by now. Raises `Overloaded` if it lives."""
        leases = self._watcher.leases
        leases.saw(run, began)
        limit = began + WAIT_LEASES * self._config.cells_lease_s
        while not leases.is_closed(run):
            if leases.was_heard_since(run, began) or time.monotonic() > limit:
                raise Overloaded(
                    "This request runs in another front: ask there, or later",
                    retry_after_s=max(1.0, self._config.cells_lease_s / 2),
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._watcher.changed.wait()

    def _is_outdated(self, life: Life) -> bool:
        ended = life.finished
        return ended is not None and time.time() > ended.ended_at + self._limits.durable_window_s

    async def _known(self, life: Life, name: str) -> Known:
        """What the logs tell of a request of a closed run."""
        orphans, run = self._watcher.orphans, life.runs[-1]
        orphan = orphans.get(name)
        if orphan is not None and orphan.run == run:
            return orphan.known
        # an orphan of a run before the last one knows less than readers have
        known = await self._watcher.known(life, name)
        if name in orphans:
            orphans[name] = Orphan(run, known)
        return known

    # requests of other fronts

    async def _beat(self) -> None:
        while True:
            self._watcher.beat()
            # the first one goes soon after the connection: the others wait for it
            is_heard = self._store.is_connected
            await asyncio.sleep(self._watcher.look_s if is_heard else CONNECTING_S)

    async def _watch(self) -> None:
        while True:
            try:
                more_is_due = await self._watcher.look()
                await self._adopt()
                if more_is_due:
                    continue
            except Away as err:
                logger.debug("cells_look_failed error=%s", err)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._watcher.look_s):
                    await self._watcher.urgent.wait()
            self._watcher.urgent.clear()

    async def _adopt(self) -> None:
        """Go on with orphans that this front can serve without their clients."""
        for name in list(self._watcher.orphans):
            try:
                await self._adopt_one(name)
            except LinkError as err:  # the others are not held up
                self._watcher.orphans.pop(name, None)
                logger.error("cells_unreadable request=%s error=%s", name, err)

    async def _adopt_one(self, name: str) -> None:
        found = await journal.read_request(self._store, name)
        life = found.life if found is not None else None
        if found is None or life is None or life.finished is not None:
            self._watcher.settled(name)
            return
        key = DurableKey(life.opened.principal, life.opened.key)
        if life.runs[-1] == self._writer.run_id:  # a claim of this front without an answer
            is_orphan = not self._durable.has(key)
        else:
            is_orphan = self._watcher.leases.is_closed(life.runs[-1])
        if not is_orphan:
            self._watcher.orphans.pop(name, None)
            return
        if key in self._turns or self._durable.has(key):
            return  # its client is here
        known = await self._known(life, name)
        if key in self._turns or self._durable.has(key):
            return  # its client has come meanwhile
        if self._reviving.can_go_on(life, known):
            async with self._turns.of(key):
                with contextlib.suppress(RequestError):  # it has been logged
                    await self._claim(name, life, known, found.last, None)

    async def _claim(
        self,
        name: str,
        life: Life,
        known: Known,
        last: int,
        reading: ReadingOf | None,
    ) -> DurableRequest | None:
        """Go on with a request of a closed run, or with one that this front has claimed before and
        does not run. None if another front does."""
        run = self._writer.run_id
        if life.runs[-1] != run:
            try:
                last = await journal.append(self._store, request_subject(name), Claimed(run), last)
            except Refused:
                return None
        try:
            revived = self._reviving.running(life, known, reading)
        except RequestError as err:
            logger.warning("cells_not_taken_over request=%s error=%s", life.opened.accepted.id, err)
            raise
        self._watcher.orphans.pop(name, None)
        self._n_taken_over += 1
        logger.info("cells_goes_on request=%s", life.opened.accepted.id)
        self._follow(name, revived, last, run)
        self._reviving.began(revived)
        return revived

    def _follow(self, name: str, request: DurableRequest, last: int, run: str) -> None:
        if run == self._writer.run_id:
            self._writer.follow(name, request, last)
        else:  # this front was fenced meanwhile: the request is its own only
            request.show_all(_fresh_tag())


def _fresh_tag() -> str:
    """A tag for events that no other front knows."""
    return new_request_id()[:8]


async def _forever(work: Callable[[], Coroutine[object, object, None]]) -> None:
    """Begin again after a defect, which is logged: durable requests wait for this task."""
    while True:
        try:
            await work()
        except Exception:  # the boundary of a task
            logger.exception("cells_broke")
            await asyncio.sleep(1.0)
