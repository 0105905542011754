"""A worker process of this machine as a front follows it: descriptors, and figures from /proc.

Common to the front's own children (`process`) and to another front's (`handover.adopted`), which
know in ways of their own how a process ended.
"""

import asyncio
import os
import resource
from collections.abc import Callable

from msgspec import Struct

from gpufc.proc_stat import stat_fields
from supervisor.fleet.end_watch import EndWatch, close_word, ending_status
from supervisor.fleet.recycling import anonymous_bytes
from supervisor.fleet.watchdog import Vitals

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

ExitListener = Callable[[int, int], None]
"""Called once, in the event loop, with `si_code` and `si_status` of the reaped process."""


class Lent(Struct, frozen=True):
    """A process's descriptors, to be copied to a front that takes over: its pidfd, the boot pipe's
    write end, and its end word, if it has one.

    The pidfd reports its end. While any process holds the pipe, it does not end by itself."""

    pidfd: int
    boot_write: int
    end_word: int | None = None


class FollowedProcess:
    """A process with its descriptors, which this object owns. Belongs to the event loop's thread.

    A subclass watches the pidfd, and closes it.
    """

    machine: str | None = None

    def __init__(self, pid: int, owned: Lent) -> None:
        self.pid = pid
        self.on_ending: ExitListener = lambda si_code, si_status: None
        self._pidfd = owned.pidfd
        self._boot_write = owned.boot_write
        self._end_word = owned.end_word
        self._end_watch: EndWatch | None = None
        self._running = True
        self._loop = asyncio.get_running_loop()

    def watch_end(self) -> None:
        """Call `on_ending` once, as soon as the process begins to end, with the arguments that
        `on_exit` will have. It is not called where that cannot be told so early."""
        if self._end_word is not None and self._end_watch is None and self._running:
            self._end_watch = EndWatch(self._end_word, self._loop, self._ending)

    def vitals(self) -> Vitals | None:
        """Its run state, CPU time and page faults now; None if they cannot be read."""
        return vitals_of(self.pid) if self._running else None

    def rss_bytes(self) -> int:
        """Resident memory now; 0 if it cannot be read."""
        return rss_bytes_of(self.pid) if self._running else 0

    def anonymous_bytes(self) -> int | None:
        """Its memory that no file backs; None if it is gone."""
        return anonymous_bytes(self.pid) if self._running else None

    def lend(self) -> Lent:
        """Its descriptors. They stay its own."""
        return Lent(self._pidfd, self._boot_write, self._end_word)

    def _close_boot(self) -> None:
        """Close the pipe and the word, and watch for no end any more. May be called again."""
        if self._end_watch is not None:
            self._end_watch.close()
        close_word(self._end_word)
        self._end_word = None
        if self._boot_write >= 0:
            os.close(self._boot_write)
            self._boot_write = -1

    def _ending(self) -> None:
        status = ending_status(self.pid)
        if self._running and status is not None:  # else the pidfd will tell
            self.on_ending(*as_waited(status))


def as_waited(status: int) -> tuple[int, int]:
    """A wait status as `si_code` and `si_status`."""
    if os.WIFSIGNALED(status):
        return os.CLD_KILLED, os.WTERMSIG(status)
    return os.CLD_EXITED, os.WEXITSTATUS(status)


def vitals_of(pid: int) -> Vitals | None:
    """A process's run state, CPU time and page faults now; None if they cannot be read."""
    try:
        fields = stat_fields(pid)
        cpu_s = (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS
        return Vitals(fields[0].decode(), cpu_s, int(fields[9]), int(fields[21]))
    except (OSError, IndexError, ValueError):
        return None


def rss_bytes_of(pid: int) -> int:
    """A process's resident memory now; 0 if it cannot be read."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0
