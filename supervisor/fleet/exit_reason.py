"""The cause of a worker's end, from the system's report of it. Pure.

`process.py` reaps processes, and `oom.py` counts out-of-memory kills.
"""

import os
import signal
from enum import StrEnum

from msgspec import Struct

from gpufc.ids import RequestNo


class Reason(StrEnum):
    """One word for an end: as the system reported it, or as the front decided it."""

    # reported
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
    UNLOADED = "unloaded"
    HUNG = "hung"
    DECODE_FAILED = "decode_failed"
    START_TIMEOUT = "start_timeout"
    LOAD_TIMEOUT = "load_timeout"
    LOAD_FAILED = "load_failed"
    TRIAL_FAILED = "trial_failed"
    PROTOCOL_ERROR = "protocol_error"
    SPAWN_FAILED = "spawn_failed"
    NODE_LOST = "node_lost"
    HOST_LOST = "host_lost"
    INTERNAL_ERROR = "internal_error"


ASKED = frozenset(
    {
        *(Reason.STOPPED, Reason.RESTARTED, Reason.SWAPPED, Reason.RECYCLED),
        *(Reason.HANDED_OVER, Reason.UNLOADED),
    }
)
"""Ends that were asked for. They are no deaths: neither policy nor records count them."""

WITH_ITS_MACHINE = frozenset({Reason.NODE_LOST, Reason.HOST_LOST})
"""The worker's machine is silent, or its worker host is gone. The worker itself did nothing, so
neither policy nor suspects count them."""

FROM_OUTSIDE = (
    frozenset({Reason.KILLED, Reason.OUT_OF_MEMORY, Reason.SPAWN_FAILED, Reason.UNLOADED})
    | WITH_ITS_MACHINE
)
"""Ends that another process, the system or the roster caused: they put no doubt on the engine."""

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
"""Signals that a process causes itself. Any other signal was sent to it."""


_OUT_OF_MEMORY = "out of memory"


class ExitReason(Struct, frozen=True, kw_only=True):
    """How a worker ended. At most one of `signal` and `code` is set. Neither is set when the front
    has given the worker up and its process has not ended yet. `at` is unix time in seconds.
    `requests` are the sequences of the fatal batch, if the worker could still send them.
    `questions` are those that a worker has hung at beside its engine: no sequence is at fault."""

    signal: int | None = None
    code: int | None = None
    reason: Reason
    at: float
    detail: str = ""
    requests: tuple[RequestNo, ...] = ()
    questions: tuple[RequestNo, ...] = ()

    def __str__(self) -> str:
        """For people: `killed (SIGKILL)`, `exited (code 3)`, `load_failed: no such file`."""
        how = _signal_name(self.signal) if self.signal else ""
        if self.code is not None:
            how = f"code {self.code}"
        return self.reason + (f" ({how})" if how else "") + (f": {self.detail}" * bool(self.detail))


def classify(si_code: int, si_status: int, *, at: float, oom: bool) -> ExitReason:
    """The end that `waitid` reported. `oom`: the kernel has counted an out-of-memory kill.

    Such a kill is an ordinary SIGKILL; only the kernel's counter tells the two apart.
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
    """The line about a device's memory in the log of an aborted process, for `detail`; else empty.

    ggml aborts when it cannot allocate an operation's working memory. No request is at fault then:
    `suspects.incriminates` looks for this text.
    """
    lines = log.decode("utf-8", "replace").splitlines()
    return next((line.strip()[-200:] for line in lines if _OUT_OF_MEMORY in line.lower()), "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
