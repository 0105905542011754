"""One worker process at the edge: spawned, signalled, noticed when it ends, reaped.

Owns the pid, its pidfd and the boot pipe's write end. Spawning is apart from booting: a spare
worker is a process that has no boot message yet.

Everything here runs in the event loop's thread, which must be the main thread: a worker's
parent-death signal follows the *thread* that forked it.
"""

import asyncio
import contextlib
import os
import resource
import signal
import site
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

import gpufc
from gpufc import wire
from gpufc.end_word import END_FD
from gpufc.proc_stat import stat_fields
from gpufc.protocol import Boot
from supervisor.fleet.end_watch import EndWatch, close_word, ending_status, new_word
from supervisor.fleet.recycling import anonymous_bytes
from supervisor.fleet.watchdog import Vitals

WORKER_COMMAND = (sys.executable, "-P", "-m", "engine_worker")
"""`-P` keeps Python from importing modules of the operator's current folder."""

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

_PASSED = frozenset(
    {
        *("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
        *("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONOPTIMIZE"),
        *("LLAMA_CPP_LIB_PATH", "GLIBC_TUNABLES"),
    }
)
_PASSED_PREFIXES = (
    *(
        "LC_",
        "CUDA_",
        "NVIDIA_",
        "NCCL_",
        "GGML_",
        "HIP_",
        "ROCR_",
        "ROCM_",
        "HSA_",
        "VK_",
        "SYCL_",
    ),
    *("ONEAPI_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_"),
)
_TUNED = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Settings of C libraries, unless the front's environment has its own.

Huge pages (madvise) for large blocks such as the KV cache: clearing and freeing them takes fewer
page faults, so a worker is ready earlier and its pidfd reports its end earlier. A short spin for
OpenMP: by default its threads wait awake for so long that two workers on the same cores, as in a
swap, keep each other from computing."""

_SECRET = ("TOKEN", "SECRET", "PASSWORD", "API_KEY")

ExitListener = Callable[[int, int], None]
"""Called once, in the event loop, with `si_code` and `si_status` of the reaped process."""


class Lent(Struct, frozen=True):
    """A process's descriptors, to be copied to a front that takes over: its pidfd, the boot pipe's
    write end, and its end word, if it has one.

    The pidfd reports its end. While any process holds the pipe, it does not end by itself."""

    pidfd: int
    boot_write: int
    end_word: int | None = None


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a worker gets, by allow-list: variables that locate libraries and devices.

    A worker reads untrusted models, so it gets no secrets."""
    passed = {
        name: value
        for name, value in environ.items()
        if (name in _PASSED or name.startswith(_PASSED_PREFIXES))
        and not any(word in name for word in _SECRET)
    }
    root = str(Path(gpufc.__file__).parent.parent)
    if root not in site.getsitepackages():  # a source tree: `-P` would not find the worker in it
        known = passed.get("PYTHONPATH")
        passed["PYTHONPATH"] = root if not known else os.pathsep.join((root, known))
    return passed


class WorkerProcess:
    """A running process and its process group, from spawn until it has been reaped.

    After `on_exit` has been called, every method does nothing.
    """

    machine: str | None = None

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        on_exit: ExitListener,
        *,
        environ: Mapping[str, str] | None = None,
        extra: Mapping[str, str] = {},
    ) -> None:
        """Spawn `command --boot-fd N`, with `extra` variables added to the scrubbed `environ`.

        Raises `OSError`.
        """
        self._on_exit = on_exit
        self.on_ending: ExitListener = lambda si_code, si_status: None
        self._loop = asyncio.get_running_loop()
        boot_read, self._boot_write = os.pipe()
        self._end_word = new_word()
        self._end_watch: EndWatch | None = None
        try:
            passed = _TUNED | scrubbed(environ or os.environ) | dict(extra)
            self._popen = _spawn(command, boot_read, self._end_word, log, passed)
        except BaseException:
            os.close(self._boot_write)
            close_word(self._end_word)
            raise
        finally:
            os.close(boot_read)
        self.pid = self._popen.pid
        with contextlib.suppress(ProcessLookupError):
            # a core file would contain prompts
            resource.prlimit(self.pid, resource.RLIMIT_CORE, (0, 0))
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:  # no descriptor is free: the process could not be followed
            os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait()
            self._close_boot()
            raise
        self._loop.add_reader(self._pidfd, self._ended)
        self._running = True

    def boot(self, boot: Boot) -> None:
        """Send the boot message. Never waits. `on_exit` reports the end of a dead process."""
        with contextlib.suppress(BrokenPipeError):
            wire.write_boot(self._boot_write, boot)

    def watch_end(self) -> None:
        """Call `on_ending` once, as soon as the process begins to end, with the arguments that
        `on_exit` will have. It is not called where that cannot be told so early."""
        if self._end_word is not None and self._end_watch is None and self._running:
            self._end_watch = EndWatch(self._end_word, self._loop, self._ending)

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the process, or with `group` also to its children."""
        if not self._running:
            return
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(self.pid, number)
            else:
                signal.pidfd_send_signal(self._pidfd, number)

    def is_alive(self) -> bool:
        """Whether it has not ended. This may be false before `on_exit` is called."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self._running and os.waitid(os.P_PIDFD, self._pidfd, options) is None

    def vitals(self) -> Vitals | None:
        """Its run state, CPU time and page faults now; None if they cannot be read."""
        return vitals_of(self.pid)

    def rss_bytes(self) -> int:
        """Resident memory now; 0 if it cannot be read."""
        return rss_bytes_of(self.pid)

    def anonymous_bytes(self) -> int | None:
        """Its memory that no file backs; None if it is gone."""
        return anonymous_bytes(self.pid)

    def lend(self) -> Lent:
        """Its descriptors. They stay its own."""
        return Lent(self._pidfd, self._boot_write, self._end_word)

    def let_go(self) -> None:
        """Leave it to another front: send nothing and report nothing any more.

        As its parent, this process still reaps it."""
        self._on_exit = lambda si_code, si_status: None
        if self._running:
            self._running = False
            self._popen.returncode = 0  # it is meant to outlive us
            self._close_boot()

    def _close_boot(self) -> None:
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

    def _ended(self) -> None:
        """The pidfd became readable: the process is a zombie, so its pid is still its own."""
        self._running = False
        self._loop.remove_reader(self._pidfd)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # its children must not outlive it
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        self._close_boot()
        if result is None:  # impossible without WNOHANG
            raise AssertionError("waitid returned nothing")
        self._popen.returncode = result.si_status  # else its destructor would wait for the pid
        self._on_exit(result.si_code, result.si_status)


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


def _spawn(
    command: Sequence[str],
    boot_read: int,
    end_word: int | None,
    log: Path,
    environ: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    log_fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            [*command, "--boot-fd", str(boot_read)],
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            env=dict(environ) | ({} if end_word is None else {END_FD: str(end_word)}),
            pass_fds=(
                boot_read,
                *(() if end_word is None else (end_word,)),
            ),  # no other one, above all no other worker's boot pipe
            process_group=0,
        )
    finally:
        os.close(log_fd)
