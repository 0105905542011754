"""Watches the other fronts of the group, and finds the requests of those that have died."""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from gpufc.errors import LinkError
from supervisor.cells import journal
from supervisor.cells.leases import Leases
from supervisor.cells.port import Refused, Store, log_subject, request_subject
from supervisor.cells.records import Closed, Life
from supervisor.cells.state import Known, Log
from supervisor.cells.writer import Writer

logger = logging.getLogger(__name__)

LOOKS = 5
"""In a lease."""

AT_ONCE = 200
"""Records of a log that are read in one go: a long log does not hold up the event loop."""


class Beat(Struct, frozen=True, array_like=True):
    """A sign of life, or, with `leaves`, the last one."""

    run: str
    leaves: bool = False


class Closing(Struct):
    """A closed log. It is needed for the requests `left` in it, which have not ended. `last` is the
    number of its last message."""

    last: int
    left: set[str]


class Orphan(Struct, frozen=True):
    """An open request of a closed run, as far as its log tells."""

    run: str
    known: Known


_beats = msgspec.msgpack.Decoder(Beat)


class Watcher:
    """One front's. In the event loop; `run` is its task.

    `orphans` are open requests of closed runs, by name. `changed` is set for a moment whenever a
    run has been heard or closed, and `urgent` when one has left.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        lease_s: float,
        window_s: Callable[[], float],
    ) -> None:
        self.leases = Leases(lease_s)
        self.orphans: dict[str, Orphan] = {}
        self.changed = asyncio.Event()
        self.urgent = asyncio.Event()
        self._store = store
        self._writer = writer
        self._window_s = window_s
        self.look_s = lease_s / LOOKS
        self._looked_for_runs_at = -float("inf")
        self._unreadable: set[str] = set()
        self._closings: dict[str, Closing] = {}
        self._lease_s = lease_s
        store.listen(self._heard)

    def _heard(self, data: bytes) -> None:
        try:
            beat = _beats.decode(data)
        except msgspec.MsgspecError:
            return
        if beat.run == self._writer.run_id:
            return
        if beat.leaves:
            self.leases.left(beat.run)
            self.urgent.set()
        else:
            self.leases.heard(beat.run, time.monotonic())
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed.clear()

    def say_goodbye(self) -> None:
        """Tell the others that this front leaves."""
        self._store.beat(msgspec.msgpack.encode(Beat(self._writer.run_id, True)))

    def beat(self) -> None:
        """Give a sign of life. To be called every `look_s`, whatever `look` waits for."""
        self._writer.look(time.monotonic())
        self._store.beat(msgspec.msgpack.encode(Beat(self._writer.run_id)))

    async def look(self) -> bool:
        """Close a run that is due, and forget records that are out of date. To be called every
        `look_s`, and again at once if it returns True: more runs are due. Raises `Away`.

        One run at a time: the requests of a front that has just died do not wait until the logs of
        all fronts that have died before are read."""
        now = time.monotonic()
        due = self.leases.tick(now, could_hear=self._store.is_connected)
        if not self._store.is_connected:
            return False
        if now - self._looked_for_runs_at > self._lease_s:
            self._looked_for_runs_at = now
            for run in await self._store.runs():
                if run != self._writer.run_id:
                    self.leases.saw(run, now)
        due = [run for run in due if run not in self._unreadable]
        if due:
            try:
                await self._close(due[0])
            except LinkError as err:  # the others are not held up
                self._unreadable.add(due[0])
                logger.error("cells_unreadable run=%s error=%s", due[0], err)
        await self._shorten()
        for name, last in self._writer.outdated(now - self._window_s()):
            await self._store.purge(request_subject(name), last + 1)
        for run in self.leases.forgotten(now - max(self._window_s(), self._lease_s)):
            await self._store.purge(log_subject(run))
            self._closings.pop(run, None)
            for name in [name for name, one in self.orphans.items() if one.run == run]:
                del self.orphans[name]
        return len(due) > 1

    async def _shorten(self) -> None:
        """Leave one message of the logs whose requests have all ended: a front that starts later
        reads every log there is."""
        for run in [run for run, one in self._closings.items() if not one.left]:
            await self._store.purge(log_subject(run), self._closings[run].last)
            del self._closings[run]

    def settled(self, name: str) -> None:
        """A request has ended, with an answer or otherwise: no log is needed for it."""
        self.orphans.pop(name, None)
        for closing in self._closings.values():
            closing.left.discard(name)

    async def _close(self, run: str) -> None:
        """Take the right to write from a run, and remember its open requests."""
        last, log = await self._read(run)
        if not log.is_closed:
            try:
                closed = Closed(self._writer.run_id)
                last = await journal.append(self._store, log_subject(run), closed, last)
            except Refused:  # it has written in this moment, so it lives
                self.leases.heard(run, time.monotonic())
                return
        self.leases.closed(run, time.monotonic())
        found = log.open
        self._closings[run] = Closing(last, set(found))
        logger.warning("cells_took_over run=%s requests=%d", run, len(found))
        self.orphans |= {name: Orphan(run, known) for name, known in found.items()}
        self._tell()

    async def _read(self, run: str) -> tuple[int, Log]:
        """The number of a log's last message, and the sum of its records, read with rests."""
        last, records = await journal.read_log(self._store, run)
        log = Log()
        for n_read, record in enumerate(records, start=1):
            log.add(record)
            if n_read % AT_ONCE == 0:
                await asyncio.sleep(0)
        return last, log

    async def known(self, life: Life, name: str) -> Known:
        """What the logs of a request's runs tell of it, that of the latest run that has any.

        Raises `Away`, and `LinkError`."""
        for run in reversed(life.runs):
            _, log = await self._read(run)
            found = log.open.get(name)
            if found is not None:
                return found
        return Known()
