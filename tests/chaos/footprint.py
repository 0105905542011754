"""The resources that a front holds, and which of them grew for good."""

import asyncio
import time
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import psutil

from supervisor.runtime_dir import RuntimeDir

STILL_S = 5.0
"""Before the first look: the last load's spare process and its child are there by then."""
SETTLE_S = 15.0
"""A count that has grown may take this long to fall: a dead child is a zombie until it is reaped,
and a closed connection keeps its descriptor until the loop's next turn."""
POLL_S = 0.05


class Watched(Protocol):
    """A running service, as far as its resources show."""

    @property
    def front(self) -> psutil.Process: ...
    @property
    def runtime(self) -> RuntimeDir: ...


class Footprint:
    """The descriptors, processes, files and memory of a front at one moment."""

    def __init__(self, running: Watched) -> None:
        front = running.front
        children = front.children(recursive=True)
        self.descriptors = front.num_fds()
        self.processes = len(children)
        self.zombies = sum(map(_is_zombie, children))
        self.sockets = len(list(running.runtime.path.glob("*.sock")))
        self.files = sum(1 for path in running.runtime.path.rglob("*") if path.is_file())
        self.threads = front.num_threads()
        self.rss_bytes = front.memory_info().rss

    @property
    def counts(self) -> tuple[int, ...]:
        """All but the memory."""
        return (
            *(self.descriptors, self.processes, self.zombies),
            *(self.sockets, self.files, self.threads),
        )

    def outgrown_by(
        self,
        later: "Footprint",
        spare_descriptors: int,
        names: Iterable[str] = ("zombies", "sockets"),
        spare_bytes: int | None = None,
    ) -> list[str]:
        """The counts that grew until `later`; `spare_descriptors` are left to connections. Memory
        counts only with `spare_bytes`."""
        wrong = []
        if later.descriptors > self.descriptors + spare_descriptors:
            wrong.append(f"descriptors: {self.descriptors} -> {later.descriptors}")
        for name in names:
            if getattr(later, name) > getattr(self, name):
                wrong.append(f"{name}: {getattr(self, name)} -> {getattr(later, name)}")
        if spare_bytes is not None and later.rss_bytes > self.rss_bytes + spare_bytes:
            wrong.append(f"memory: {self.rss_bytes} -> {later.rss_bytes} bytes")
        return wrong

    def __str__(self) -> str:
        return (
            f"descriptors={self.descriptors} processes={self.processes} zombies={self.zombies} "
            f"sockets={self.sockets} files={self.files} threads={self.threads} "
            f"front_rss={self.rss_bytes / 2**20:.1f} MiB"
        )


class Change(NamedTuple):
    """A front before a run and after it."""

    before: Footprint
    after: Footprint


def most_grown(fronts: Iterable[Change]) -> Change:
    """The change of the front whose memory grew most."""
    return max(fronts, key=lambda one: one.after.rss_bytes - one.before.rss_bytes)


async def at_rest(running: Watched, still_s: float = 0.0) -> Footprint:
    """A footprint to compare with. It counts no zombie: one would excuse a later one. Its counts
    have been the same for `still_s`: a process that is yet to start would look like a leak."""
    deadline = time.monotonic() + SETTLE_S + still_s
    last, since = None, 0.0
    while True:
        found, now = await _look(running), time.monotonic()
        if found.counts != last:
            last, since = found.counts, now
        if not found.zombies and now - since >= still_s:
            return found
        if now > deadline:
            raise AssertionError(f"not reaped, or not still, within {SETTLE_S:.0f} s: {found}")
        await asyncio.sleep(POLL_S)


async def growth(
    running: Watched,
    before: Footprint,
    spare_descriptors: int,
    names: Iterable[str] = ("zombies", "sockets"),
    spare_bytes: int | None = None,
) -> tuple[Footprint, list[str]]:
    """The last footprint, and its counts that have stayed above those of `before`."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        after = await _look(running)
        grown = before.outgrown_by(after, spare_descriptors, names, spare_bytes)
        if not grown or time.monotonic() > deadline:
            return after, grown
        await asyncio.sleep(POLL_S)


async def _look(running: Watched) -> Footprint:
    return await asyncio.to_thread(Footprint, running)


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
