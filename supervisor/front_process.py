"""The attributes of a front's process: signals, core files, threads, orphans, logs.

Each front sets them before it serves, also a front that takes over from another one.
"""

import asyncio
import contextlib
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from gpufc import prctl, signals
from gpufc.proc_stat import stat_fields
from supervisor import log_rotation
from supervisor.looks import repeat

DRAINING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU)
"""Signals that let running requests end. SIGHUP does only when the terminal has closed. The kernel
sends SIGXCPU every second from the soft limit of CPU time on, and kills at the hard one."""

REPEATED = {signal.SIGHUP, signal.SIGXCPU}
"""Signals that come several times for one cause, so that a second one says nothing. They do not
count as a first SIGTERM either: the SIGTERM after one is the first that a person has sent."""

ENDING = (signal.SIGQUIT,)
"""Signals that end running requests at once, each with its terminal message."""

LOOK_S = 0.5

MOST_THREADS = 32
MORE_THREADS = 4
"""For calls that block: as many as there are cores and these, as in asyncio's own pool."""


def confine() -> None:
    """Leave no core file, hide /proc/PID from other processes of the user, adopt orphans, and
    ignore stray signals.

    The memory of a front holds prompts and the admin token. A core pattern that is a pipe ignores
    the limit of core files, so the process is not dumpable either.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl.set_dumpable(False)
    prctl.adopt_orphans()
    signals.ignore_stray()


def start_threads() -> None:
    """Start all threads of the running loop's `to_thread` now, by the name `blocking`.

    The loop's own pool starts one whenever more calls block at once than ever before. The system
    may refuse it then, and the front's number of threads grows as if it leaked.
    """
    n_threads = min(MOST_THREADS, (os.cpu_count() or 1) + MORE_THREADS)
    executor = ThreadPoolExecutor(n_threads, thread_name_prefix="blocking")
    asyncio.get_running_loop().set_default_executor(executor)
    all_run = threading.Barrier(n_threads)
    try:
        for _ in range(n_threads):
            executor.submit(all_run.wait)
    except RuntimeError:  # the system refuses a thread: those that there are will do
        all_run.abort()


def attend_signals(
    request_stop: Callable[[signal.Signals, bool], None], reload: Callable[[], None]
) -> None:
    """Call `request_stop` with the signal, and whether to end at once.

    A second SIGINT or SIGTERM ends at once. SIGHUP calls `reload`, unless it comes from a terminal
    that has closed: that lets running requests end, and never ends at once, because a closing
    terminal sends several; so it is with SIGXCPU. A front that was started with SIGHUP ignored
    (nohup) goes on ignoring it. Runs in the main thread's loop.
    """
    draining = was_told = False
    had_terminal = _has_terminal()

    def drain(number: signal.Signals) -> None:
        nonlocal draining, was_told
        if number is signal.SIGHUP and not (had_terminal and not _has_terminal()):
            reload()
            return
        is_first, draining = not draining, True
        at_once = number not in REPEATED and was_told
        was_told |= number not in REPEATED
        if is_first or at_once:
            request_stop(number, at_once)

    for number in DRAINING:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        on_signal(number, drain, number)
    for number in ENDING:
        on_signal(number, request_stop, number, True)


def on_signal(number: signal.Signals, call: Callable[..., None], *args: Any) -> None:
    """Call in the running loop, once for each signal. After the loop's end, the signal has its
    default action.

    uvloop's `add_signal_handler` calls twice for a signal that arrives while the loop reads another
    one from its self-pipe. A SIGTERM shortly after a SIGHUP would count as a second SIGTERM, which
    ends running streams.
    """
    loop = asyncio.get_running_loop()

    def handler(_number: int, _frame: FrameType | None) -> None:
        try:
            loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    signal.signal(number, handler)
    signal.siginterrupt(number, False)


def _has_terminal() -> bool:
    """Whether a standard stream is a terminal. One that has closed is none any more."""
    return any(os.isatty(fd) for fd in (0, 1, 2))


async def reap_orphans() -> None:
    """Reap adopted children for ever: a dead worker leaves its template processes.

    Each child of this process's own has an owner in this loop, which reaps it at once. So a zombie
    that has been seen at two looks is an orphan.
    """
    seen: set[int] = set()

    async def look() -> None:
        zombies = await asyncio.to_thread(_zombies) if _has_zombie() else set()
        for pid in zombies & seen:
            _reap(pid)
        seen.clear()
        seen.update(zombies)

    await repeat("orphans", look, LOOK_S)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _has_zombie() -> bool:
    """Whether a child has ended and is not reaped."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _zombies() -> set[int]:
    """The children that have ended and are not reaped. Reads /proc."""
    ended = (b"Z", str(os.getpid()).encode())
    with contextlib.suppress(OSError):
        return {int(name) for name in os.listdir("/proc") if name.isdigit() and _kin(name) == ended}
    return set()


def _kin(pid: str) -> tuple[bytes, bytes] | None:
    """A process's state and its parent's pid; None if it has gone."""
    try:
        state, parent = stat_fields(int(pid))[:2]
    except (OSError, ValueError):
        return None
    return state, parent


async def keep_rotated(
    logs: Path, limit_bytes: Callable[[], int], look_s: float = log_rotation.LOOK_S
) -> None:
    """Rotate all logs of a folder for ever. The limit may change."""

    async def look() -> None:
        await asyncio.to_thread(log_rotation.rotate_folder, logs, limit_bytes())

    await repeat("log rotation", look, look_s)
