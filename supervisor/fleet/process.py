"""One worker process at the edge: spawned, signalled, noticed when it ends, reaped.

Owns the pid, its pidfd and the boot pipe's write end. Spawning is apart from booting: a spare
worker is a process that has no boot message yet.

Everything here runs in the event loop's thread, which must be the main thread: a worker's
parent-death signal follows the *thread* that forked it.
"""

import contextlib
import os
import resource
import signal
import site
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import gpufc
from gpufc import wire
from gpufc.end_word import END_FD
from gpufc.protocol import Boot
from supervisor.fleet.end_watch import close_word, new_word
from supervisor.fleet.followed import ExitListener, FollowedProcess, Lent

WORKER_COMMAND = (sys.executable, "-P", "-m", "engine_worker")
"""`-P` keeps Python from importing modules of the operator's current folder."""

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


class WorkerProcess(FollowedProcess):
    """A running process and its process group, from spawn until it has been reaped.

    After `on_exit` has been called, every method does nothing.
    """

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
        boot_read, boot_write = os.pipe()
        end_word = new_word()
        try:
            passed = _TUNED | scrubbed(environ or os.environ) | dict(extra)
            self._popen = _spawn(command, boot_read, end_word, log, passed)
            pidfd = _follow(self._popen)
        except BaseException:
            os.close(boot_write)
            close_word(end_word)
            raise
        finally:
            os.close(boot_read)
        super().__init__(self._popen.pid, Lent(pidfd, boot_write, end_word))
        with contextlib.suppress(ProcessLookupError):
            # a core file would contain prompts
            resource.prlimit(self.pid, resource.RLIMIT_CORE, (0, 0))
        self._on_exit = on_exit
        self._loop.add_reader(self._pidfd, self._ended)

    def boot(self, boot: Boot) -> None:
        """Send the boot message. Never waits. `on_exit` reports the end of a dead process."""
        with contextlib.suppress(BrokenPipeError):
            wire.write_boot(self._boot_write, boot)

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

    def let_go(self) -> None:
        """Leave it to another front: send nothing and report nothing any more.

        As its parent, this process still reaps it."""
        self._on_exit = lambda si_code, si_status: None
        if self._running:
            self._running = False
            self._popen.returncode = 0  # it is meant to outlive us
            self._close_boot()

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


def _follow(child: subprocess.Popen[bytes]) -> int:
    """A child's pidfd. Raises `OSError`, and ends the child, which could not be followed then."""
    try:
        return os.pidfd_open(child.pid)
    except OSError:  # no descriptor is free
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise


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
