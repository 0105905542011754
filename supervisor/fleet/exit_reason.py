"""Why a worker's process ended. Pure: what the system reports goes in, one `ExitReason` comes out.

Knows nothing of how a process is reaped (`process.py`) or of how out-of-memory kills are counted
(`oom.py`).
"""

import os
import signal
from enum import StrEnum

from msgspec import Struct

from gpufc.ids import RequestNo


class Reason(StrEnum):
    """One word for an end: as the system saw it, or as the front decided it."""

    # seen
    EXITED = "exited"
    KILLED = "killed"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    # decided
    STOPPED = "stopped"
    RESTARTED = "restarted"
    SWAPPED = "swapped"
    RECYCLED = "recycled"
    HANDED_OVER = "handed_over"
    HUNG = "hung"
    DECODE_FAILED = "decode_failed"
    START_TIMEOUT = "start_timeout"
    LOAD_TIMEOUT = "load_timeout"
    LOAD_FAILED = "load_failed"
    PROTOCOL_ERROR = "protocol_error"
    SPAWN_FAILED = "spawn_failed"
    INTERNAL_ERROR = "internal_error"


ASKED = frozenset(
    {Reason.STOPPED, Reason.RESTARTED, Reason.SWAPPED, Reason.RECYCLED, Reason.HANDED_OVER}
)
"""Ends that somebody wanted: they are no deaths, and nothing is to be concluded from them."""

CRASH_SIGNALS = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGFPE,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
"""Signals that a process brings upon itself. Every other one was sent to it."""


_OUT_OF_MEMORY = "out of memory"


class ExitReason(Struct, frozen=True, kw_only=True):
    """How a worker ended. At most one of `signal` and `code` is set; neither where the front has
    given a worker up whose process has not ended yet. `at` is unix time in seconds. `requests` are
    those that the fatal batch computed, where the worker could still tell."""

    signal: int | None = None
    code: int | None = None
    reason: Reason
    at: float
    detail: str = ""
    requests: tuple[RequestNo, ...] = ()

    def __str__(self) -> str:
        """For people: `killed (SIGKILL)`, `exited (code 3)`, `load_failed: no such file`."""
        how = _signal_name(self.signal) if self.signal else ""
        if self.code is not None:
            how = f"code {self.code}"
        return self.reason + (f" ({how})" if how else "") + (f": {self.detail}" * bool(self.detail))


def classify(si_code: int, si_status: int, *, at: float, oom: bool) -> ExitReason:
    """The end that `waitid` reported. `oom`: an out-of-memory kill has been counted meanwhile.

    An out-of-memory kill is a SIGKILL like any other; only the kernel's counter tells them apart.
    """
    if si_code == os.CLD_EXITED:
        return ExitReason(code=si_status, reason=Reason.EXITED, at=at)
    if si_status in CRASH_SIGNALS:
        reason = Reason.CRASHED
    elif si_status == signal.SIGKILL and oom:
        reason = Reason.OUT_OF_MEMORY
    else:
        reason = Reason.KILLED
    return ExitReason(signal=si_status, reason=reason, at=at)


def device_memory(log: bytes) -> str:
    """What a process that has aborted said of a device's memory, for `detail`; else empty.

    ggml ends the process when an operation's working memory cannot be had. That is nobody's fault
    in particular: `suspects.incriminates` goes by these words.
    """
    lines = log.decode("utf-8", "replace").splitlines()
    return next((line.strip()[-200:] for line in lines if _OUT_OF_MEMORY in line.lower()), "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
