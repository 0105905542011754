"""Child processes that may be killed at any moment: pipes, limits, deadlines.

The parent's side is `Child`; the child's side is `confine`, `allow_cpu`, `read_message` and
`answer`. A child that must outlive its work does it in a copy of itself: `forked`.
"""

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, NoReturn

from engine_worker import time_slice
from gpufc import framing, prctl
from gpufc.errors import LinkError
from gpufc.proc_stat import stat_fields

MAX_FRAME_BYTES = 64 << 20
CANCEL_POLL_S = 0.05
"""How often a call that can be cancelled looks whether it has been."""


class ChildDied(Exception):
    """The pipe to the child broke, or the child cannot be started."""


class Starved(Exception):
    """The time was over, and the copy had less than half of it on a processor."""


class CallCancelled(Exception):
    """The caller does not want the answer any more. The child is still at work: kill it."""


def _optimized() -> dict[str, str]:
    """A child is compiled as this process is."""
    name = "PYTHONOPTIMIZE"
    return {name: os.environ[name]} if name in os.environ else {}


def _never() -> bool:
    return False


class Child:
    """One child process and its two pipes. Used by one thread at a time.

    The child dies with the *thread* that made it, which must therefore live as long as the process.
    """

    def __init__(self, module: str, *args: str, environ: Mapping[str, str] | None = None) -> None:
        """Start `python -m module PARENT_PID args…`. Raises `ChildDied`."""
        # -P and PYTHONPATH: our own packages from where this file is, nothing from the folder
        # that the worker happens to run in, and dependencies from where this process has them
        root = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join([root, *(entry for entry in sys.path if entry)])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", module, str(os.getpid()), *args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": path, "LANG": "C.UTF-8", **_optimized(), **(environ or {})},
                bufsize=0,
            )
        except OSError as err:
            raise ChildDied(f"it cannot be started: {err}") from err
        self.pid = self._process.pid
        self._pipes = [pipe for pipe in (self._process.stdin, self._process.stdout) if pipe]
        self._to, self._from = (pipe.fileno() for pipe in self._pipes)
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._deadline = 0.0
        self._cancelled: Callable[[], bool] = _never

    def call(
        self, message: bytes, timeout_s: float, cancelled: Callable[[], bool] = _never
    ) -> bytes:
        """Send a message and wait for the answer.

        Raises `TimeoutError`, `ChildDied` or `CallCancelled`; the child is of no use afterwards.
        """
        self._deadline = time.monotonic() + timeout_s
        self._cancelled = cancelled
        self._send(message)
        try:
            answer = framing.read_frame(self._read, MAX_FRAME_BYTES)
        except LinkError as err:
            raise ChildDied(f"it sent {err}") from err
        if answer is None:
            raise ChildDied("it ended")
        return answer

    def kill(self) -> None:
        """Kill and reap the process."""
        self._process.kill()
        self._process.wait()
        for pipe in self._pipes:
            pipe.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended by itself."""
        return self._process.poll() is None

    @property
    def is_stopped(self) -> bool:
        """Whether a signal has stopped the process."""
        return self._stat()[:1] in ([b"T"], [b"t"])

    @property
    def cpu_s(self) -> float:
        """The CPU time that the process has used; 0 where that cannot be read."""
        fields = self._stat()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else 0.0

    def _stat(self) -> list[bytes]:
        """/proc/PID/stat from the process's state on."""
        try:
            return stat_fields(self.pid)
        except OSError:
            return []

    def status_if_ended(self) -> int | None:
        """The exit status of a child whose pipe broke; negative is a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(1.0)
        return None

    def _send(self, message: bytes) -> None:
        rest = memoryview(framing.frame(message))
        while rest:
            self._wait(self._to, select.POLLOUT)
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as err:
                raise ChildDied("it does not read") from err

    def _read(self, length: int) -> bytes:
        self._wait(self._from, select.POLLIN)
        return os.read(self._from, min(length, 1 << 20))

    def _wait(self, fd: int, event: int) -> None:
        poll = select.poll()
        poll.register(fd, event)
        while True:
            left_s = self._deadline - time.monotonic()
            if poll.poll(1000 * max(0.0, min(left_s, CANCEL_POLL_S))):
                return
            if self._cancelled():
                raise CallCancelled
            # once more without waiting: had this process been stopped, the answer may have come
            if left_s <= 0:
                if poll.poll(0):
                    return
                raise TimeoutError


def confine(parent: int, memory_bytes: int) -> None:
    """Die with the parent, gain no privileges, take no more memory, write no files, and have the
    usual time slice, whichever thread the parent is.

    Out of memory, the kernel ends this process before any other.
    """
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the pipe's end has to do
        prctl.end_with_parent()
        prctl.gain_no_privileges()
    if os.getppid() != parent:
        sys.exit(0)
    prctl.be_killed_before_others(1000)
    time_slice.choose(None)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the parent's affair
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)  # else `allow_cpu` would not end it


def allow_cpu(seconds: int) -> None:
    """Grant this much CPU time from now on: the kernel's limit counts a process's whole life."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def forked(work: Callable[[], bytes], timeout_s: float) -> bytes:
    """The result of `work`, in a copy of this process that may die of it. For a process with one
    thread: a copy has the calling thread only.

    Raises `TimeoutError`, `Starved` or `ChildDied`; the copy has ended in any case.
    """
    deadline, own = time.monotonic() + timeout_s, os.getpid()
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer_and_end(work, own, sink)
    os.close(sink)
    is_late = False
    try:
        return _read_to_end(source, deadline)
    except TimeoutError:
        is_late = True
        raise
    finally:
        os.close(source)
        os.kill(pid, signal.SIGKILL)  # before it is reaped, the number is its own
        used = os.wait4(pid, 0)[2]
        if is_late and is_starved(used.ru_utime + used.ru_stime, timeout_s):
            raise Starved


def is_starved(cpu_s: float, timeout_s: float) -> bool:
    """Whether a copy that used `cpu_s` seconds of CPU had too little of its time to tell."""
    return cpu_s < timeout_s / 2


def _answer_and_end(work: Callable[[], bytes], parent: int, sink: int) -> NoReturn:
    """The copy's whole life. It must not return into its parent's code."""
    with contextlib.suppress(BaseException):
        with contextlib.suppress(OSError, AttributeError):
            prctl.end_with_parent()
        os.closerange(0, 2)  # the parent's pipes: a broken copy answers for no other work
        rest = memoryview(framing.frame(work())) if os.getppid() == parent else memoryview(b"")
        while rest:
            rest = rest[os.write(sink, rest) :]
    os._exit(0)


def _read_to_end(source: int, deadline: float) -> bytes:
    """The one message in a pipe."""
    poll = select.poll()
    poll.register(source, select.POLLIN)

    def read(length: int) -> bytes:
        if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        return os.read(source, min(length, 1 << 20))

    try:
        answer = framing.read_frame(read, MAX_FRAME_BYTES)
    except LinkError as err:
        raise ChildDied(f"it sent {err}") from err
    if answer is None:
        raise ChildDied("it ended")
    return answer


def read_message(source: BinaryIO) -> bytes | None:
    """The next message from the parent; None at the end of the pipe."""
    return framing.read_frame(source.read, MAX_FRAME_BYTES)


def answer(sink: BinaryIO, message: bytes) -> None:
    """Answer the parent."""
    sink.write(framing.frame(message))
    sink.flush()
