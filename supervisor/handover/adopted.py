"""A worker process of another front, watched by its pidfd because it is not a child of this one.

Takes the role of a `WorkerProcess`. `waitid` is not available. The exit status stands in /proc
until the parent has reaped the process; later the pidfd has it (PIDFD_GET_INFO, Linux 6.15). On an
older kernel, Python's fault handler may have named the signal in the worker's log.
"""

import contextlib
import fcntl
import logging
import os
import signal as signals
import struct
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from gpufc.proc_stat import stat_fields
from gpufc.protocol import Boot
from supervisor.fleet.followed import ExitListener, FollowedProcess, Lent, as_waited

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
    """A running worker as it was handed over. Its holder owns the descriptors."""

    pid: int
    lent: Lent


class AdoptedProcess(FollowedProcess):
    """Implements `fleet.edge.Process`. All methods run in the event loop's thread.

    Until `attach`, the process belongs to the old front: it gets no messages, and its exit is not
    reported.
    """

    def __init__(
        self,
        inherited: Inherited,
        log: Path,
        on_exit: ExitListener,
        on_boot: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_exit` gets `si_code` and `si_status` as from `waitid`, once. `on_boot` is called when
        the runner has named a successor."""
        super().__init__(inherited.pid, inherited.lent)
        self.successor: Boot | None = None
        """This process's role, once the runner has named it."""
        self._log = log
        self._log_mark = _size(log)
        self._on_exit = on_exit
        self._on_boot = on_boot
        self._is_ours = False
        self._end_wanted = False
        """Whether `watch_end` was called before `attach`: both follow the same `Go`, and a worker
        may be ready here before this front has read it."""

    def boot(self, boot: Boot) -> None:
        """Keep the boot message for `Attach`: the process was booted by the old front."""
        self.successor = boot
        self._on_boot()

    def attach(self) -> None:
        """Own the process from now on."""
        self._is_ours = True
        self._loop.add_reader(self._pidfd, self._ended)
        if self._end_wanted:
            self.watch_end()

    def signal(self, number: signals.Signals, *, group: bool = False) -> None:
        """Send a signal to the process, or to its whole group."""
        if not self._running or not self._is_ours:
            return
        with contextlib.suppress(ProcessLookupError):
            if group:
                self._signal_group(number)
            else:
                signals.pidfd_send_signal(self._pidfd, number)

    def watch_end(self) -> None:
        """See `WorkerProcess`. Before `attach` it takes effect there."""
        self._end_wanted = True
        if self._is_ours:
            super().watch_end()

    def let_go(self) -> None:
        """See `WorkerProcess`. There is no child to reap."""
        if self._running:
            self._running = False
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._close_boot()

    def _signal_group(self, number: signals.Signals) -> None:
        try:
            signals.pidfd_send_signal(self._pidfd, number, None, _PIDFD_SIGNAL_PROCESS_GROUP)
        except OSError:
            if (
                self._running
            ):  # before Linux 6.9; the number of a reaped process may have been reused
                os.killpg(self.pid, number)

    def _ended(self) -> None:
        self._running = False
        self._loop.remove_reader(self._pidfd)
        with contextlib.suppress(OSError):
            self._signal_group(signals.SIGKILL)  # its children must not outlive it
        self._close_boot()
        status = _zombie_status(self.pid, self._pidfd)
        if status is None:
            status = _exit_status(self._pidfd)
        os.close(self._pidfd)
        if status is None:
            status = _last_words(self._log, self._log_mark)
            logger.warning("exit_status_unknown pid=%d; taken to be %d", self.pid, status)
        self._on_exit(*as_waited(status))


def _zombie_status(pid: int, pidfd: int) -> int | None:
    """The wait status of a process that is not reaped yet; None if it is."""
    try:
        fields = stat_fields(pid)
        signals.pidfd_send_signal(pidfd, 0)  # fails if the number may have been reused
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
    """The signal that the fault handler named, else SIGKILL, which leaves no trace."""
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
