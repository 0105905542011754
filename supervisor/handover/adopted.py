"""A worker that another front has started: watched by its pidfd, since it is nobody's child here.

Stands where a `WorkerProcess` would. What it lacks is `waitid`: how the process ended stands in
/proc until its parent has reaped it; after that its pidfd can be asked (PIDFD_GET_INFO, Linux
6.15). Where an older kernel does not tell, Python's fault handler may have, in the worker's log.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal as signals
import struct
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from gpufc.protocol import Boot
from supervisor.fleet.process import ExitListener, rss_bytes_of, vitals_of
from supervisor.fleet.watchdog import Vitals

logger = logging.getLogger(__name__)

_INFO_BYTES = 64
_PIDFD_GET_INFO = (3 << 30) | (_INFO_BYTES << 16) | (0xFF << 8) | 11
"""`_IOWR(0xFF, 11, struct pidfd_info)` of linux/pidfd.h, in its first version."""
_PIDFD_INFO_EXIT = 1 << 3
_EXIT_CODE_AT = 60
_PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2

_LAST_WORDS = {
    b"Fatal Python error: Segmentation fault": signals.SIGSEGV,
    b"Fatal Python error: Aborted": signals.SIGABRT,
    b"Fatal Python error: Bus error": signals.SIGBUS,
    b"Fatal Python error: Floating point exception": signals.SIGFPE,
    b"Fatal Python error: Illegal instruction": signals.SIGILL,
}
_TAIL_BYTES = 64 * 1024


class Inherited(Struct, frozen=True):
    """A running worker as it was handed over. Both descriptors belong to whoever holds this."""

    pid: int
    pidfd: int
    boot_write: int


class AdoptedProcess:
    """Implements `fleet.edge.Process`. All methods belong to the event loop's thread.

    Until `attach` was called it belongs to the front before: nothing is sent to it, and its end
    is not told of.
    """

    def __init__(
        self,
        inherited: Inherited,
        log: Path,
        on_exit: ExitListener,
        on_boot: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_exit` is told once, with `si_code` and `si_status` as `waitid` would have them;
        `on_boot`, when there is a successor."""
        self.pid = inherited.pid
        self.successor: Boot | None = None
        """What this process is to be now, once the runner has said so."""
        self._pidfd = inherited.pidfd
        self._boot_write = inherited.boot_write
        self._log = log
        self._log_mark = _size(log)
        self._on_exit = on_exit
        self._on_boot = on_boot
        self._is_ours = False
        self._running = True
        self._loop = asyncio.get_running_loop()

    def boot(self, boot: Boot) -> None:
        """It has been booted long ago: this is only remembered, for `Attach`."""
        self.successor = boot
        self._on_boot()

    def attach(self) -> None:
        """From now on it is ours to end."""
        self._is_ours = True
        self._loop.add_reader(self._pidfd, self._ended)

    def signal(self, number: signals.Signals, *, group: bool = False) -> None:
        """Send a signal to the process, or to all that it has started too."""
        if not self._running or not self._is_ours:
            return
        with contextlib.suppress(ProcessLookupError):
            if group:
                self._signal_group(number)
            else:
                signals.pidfd_send_signal(self._pidfd, number)

    def vitals(self) -> Vitals | None:
        """See `WorkerProcess`."""
        return vitals_of(self.pid) if self._running else None

    def rss_bytes(self) -> int:
        """See `WorkerProcess`."""
        return rss_bytes_of(self.pid) if self._running else 0

    def lend(self) -> tuple[int, int]:
        """See `WorkerProcess`."""
        return self._pidfd, self._boot_write

    def let_go(self) -> None:
        """See `WorkerProcess`; there is nobody to reap here."""
        if self._running:
            self._running = False
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            os.close(self._boot_write)

    def _signal_group(self, number: signals.Signals) -> None:
        try:
            signals.pidfd_send_signal(self._pidfd, number, None, _PIDFD_SIGNAL_PROCESS_GROUP)
        except OSError:
            if self._running:  # before Linux 6.9; a reaped one's number may be somebody else's
                os.killpg(self.pid, number)

    def _ended(self) -> None:
        self._running = False
        self._loop.remove_reader(self._pidfd)
        with contextlib.suppress(OSError):
            self._signal_group(signals.SIGKILL)  # what it started must not outlive it
        os.close(self._boot_write)
        status = _zombie_status(self.pid, self._pidfd)
        if status is None:
            status = _exit_status(self._pidfd)
        os.close(self._pidfd)
        if status is None:
            status = _last_words(self._log, self._log_mark)
            logger.warning("exit_status_unknown pid=%d; taken to be %d", self.pid, status)
        if os.WIFSIGNALED(status):
            self._on_exit(os.CLD_KILLED, os.WTERMSIG(status))
        else:
            self._on_exit(os.CLD_EXITED, os.WEXITSTATUS(status))


def _zombie_status(pid: int, pidfd: int) -> int | None:
    """The wait status of a process that nobody has reaped yet; None if somebody has."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        signals.pidfd_send_signal(pidfd, 0)  # fails if the number may be another's by now
    except OSError:
        return None
    return int(fields[-1]) if fields[0] == b"Z" else None


def _exit_status(pidfd: int) -> int | None:
    """The wait status of a process that has been reaped; None if the kernel does not tell."""
    info = bytearray(_INFO_BYTES)
    struct.pack_into("=Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    (mask,) = struct.unpack_from("=Q", info)
    if not mask & _PIDFD_INFO_EXIT:
        return None
    (status,) = struct.unpack_from("=i", info, _EXIT_CODE_AT)
    return int(status)


def _last_words(log: Path, mark: int) -> int:
    """The signal that the fault handler wrote of, else SIGKILL, which leaves no words."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(min(mark, end), end - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except OSError:
        tail = b""
    found = [(tail.rfind(words), number) for words, number in _LAST_WORDS.items()]
    at, number = max(found)
    return int(number if at >= 0 else signals.SIGKILL)


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except OSError:
        return 0
