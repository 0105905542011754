"""The records that the flight recorder has made of one cell."""

import asyncio
import time
from pathlib import Path

from msgspec.structs import asdict

from supervisor.fleet.crash_record import CrashRecord
from supervisor.fleet.crash_store import CrashStore
from tests.chaos.faults import Fault

WRITTEN_S = 5.0
"""A thread writes them, and no event tells."""
POLL_S = 0.02


class Records:
    """The records that were written since this object was made."""

    def __init__(self, runtime: Path) -> None:
        self._store = CrashStore(runtime)
        self._before = {summary.id for summary in self._store.list()}

    def found(self) -> list[CrashRecord]:
        """The records now, in the order of the deaths."""
        new = [summary for summary in self._store.list() if summary.id not in self._before]
        return [self._store.load(each.id) for each in sorted(new, key=lambda each: each.epoch)]

    async def at_least(self, number: int) -> list[CrashRecord]:
        """The records once there are so many, or after `WRITTEN_S`."""
        deadline = time.monotonic() + WRITTEN_S
        while True:
            found = self.found()
            if len(found) >= number or time.monotonic() > deadline:
                return found
            await asyncio.sleep(POLL_S)

    async def explained(self, fault: Fault, *, pid: int | None, after: int) -> str | None:
        """None if a record of a later epoch than `after` says that a worker (that with this pid)
        died of this; else the reasons in the records."""
        deadline = time.monotonic() + WRITTEN_S
        while True:
            found = [record for record in self.found() if record.epoch > after]
            hit = [record for record in found if pid is None or record.pid == pid]
            if any(fault.explains(asdict(record)) for record in hit):
                return None
            if time.monotonic() > deadline:
                return f"no record of {fault.name}: {[record.reason for record in found]}"
            await asyncio.sleep(POLL_S)
