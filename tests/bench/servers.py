"""Starts and ends the measured servers, all with the same model, threads, context and slots.

A server lives for one scenario of one round, so that only one is loaded at a time.
"""

import contextlib
import os
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import psutil
from msgspec import Struct

from gpufc.errors import StartError
from tests.endings import unwound
from tests.ports import free_port

START_S = 120.0
STOP_S = 20.0
QUIET_WITHIN_S = 15.0
QUIET_FOR_S = 0.5
QUIET_SHARE = 0.1

_CPUCLOCK_SCHED = 2


class Setting(Struct, frozen=True, kw_only=True):
    """The servers' common setting. `n_ctx` is the context of one request.

    With `unified` None, each server chooses the layout of its KV cache; true means one cache for
    all sequences. With `n_threads` None, each chooses its number of threads.
    """

    model: Path
    n_threads: int | None
    n_ctx: int
    slots: int = 8
    flash_attention: str = "auto"
    unified: bool | None = None

    @property
    def threads(self) -> str:
        """For people."""
        return "own numbers of threads" if self.n_threads is None else f"{self.n_threads} threads"

    @property
    def thread_options(self) -> list[str]:
        """Of llama.cpp's programs."""
        return [] if self.n_threads is None else ["--threads", str(self.n_threads)]


class Server(Protocol):
    """A measured program."""

    @property
    def name(self) -> str: ...

    @property
    def certificate(self) -> Path | None:
        """The certificate of a server that speaks TLS, for its clients to trust."""
        ...

    def command(self, setting: Setting, port: int, folder: Path) -> list[str]:
        """The command to run. `folder` is private and removed when the server has ended."""
        ...

    def environ(self, setting: Setting) -> dict[str, str]:
        """Variables in addition to this process's."""
        ...


class Gpufc(Struct, frozen=True, kw_only=True):
    """This project's service, from this tree or another `checkout`. `keys` are further keys of its
    configuration.

    It has no spare worker: the spare's start would fall into the measurement.
    """

    name: str = "gpufc"
    keys: dict[str, str] = {}
    checkout: Path | None = None

    @property
    def certificate(self) -> Path | None:
        found = self.keys.get("tls_cert")
        return Path(found) if found else None

    def command(self, setting: Setting, port: int, folder: Path) -> list[str]:
        command = [sys.executable, "-m", "supervisor.cli", "start"]
        command += ["--port", str(port), "--runtime-dir", str(folder / "run")]
        command += ["--model-path", str(setting.model), "--n-ctx", str(setting.n_ctx)]
        return [*command, "--max-concurrent-requests", str(setting.slots)]

    def environ(self, setting: Setting) -> dict[str, str]:
        keys: dict[str, object] = {"standby": "none"}
        if setting.n_threads is not None:
            keys["n_threads"] = setting.n_threads
        keys["flash_attention"] = setting.flash_attention
        unified = {} if setting.unified is None else {"kv_unified": str(setting.unified).lower()}
        all_keys = {**keys, **unified, **self.keys}
        environ = {f"GPUFC_{key.upper()}": str(value) for key, value in all_keys.items()}
        if self.checkout is not None:
            known = os.environ.get("PYTHONPATH")
            environ["PYTHONPATH"] = os.pathsep.join([str(self.checkout), *filter(None, [known])])
            environ["PYTHONSAFEPATH"] = "1"  # else `-m` looks into this folder before the checkout
        return environ


class LlamaServer(Struct, frozen=True, kw_only=True):
    """llama.cpp's own server, with its defaults such as its prompt cache."""

    program: Path
    name: str = "llama-server"
    arguments: tuple[str, ...] = ()
    certificate: Path | None = None

    def command(self, setting: Setting, port: int, folder: Path) -> list[str]:
        command = [str(self.program), "--host", "127.0.0.1", "--port", str(port)]
        command += ["--model", str(setting.model), "--ctx-size", str(setting.n_ctx * setting.slots)]
        command += ["--parallel", str(setting.slots), *setting.thread_options]
        command += ["--flash-attn", setting.flash_attention]
        # each stream occupies an HTTP thread
        command += ["--threads-http", str(2 * setting.slots + 2)]
        if setting.unified is not None:
            command.append("--kv-unified" if setting.unified else "--no-kv-unified")
        return [*command, *self.arguments]

    def environ(self, setting: Setting) -> dict[str, str]:
        return {}


class Running:
    """A server that is ready."""

    def __init__(
        self, url: str, process: psutil.Process, trusted: ssl.SSLContext | None = None
    ) -> None:
        """`trusted` is the context of clients of a server that speaks TLS."""
        self.url = url
        self.trusted = trusted
        self._process = process

    def cpu_s(self) -> float:
        """Processor time of all its live processes."""
        total = 0.0
        for process in [self._process, *self._process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def front_cpu_s(self) -> float:
        """Processor time of the started process without its children.

        From the process's own clock (clock_getcpuclockid(3)): `/proc` counts in hundredths of a
        second.
        """
        return time.clock_gettime(~self._process.pid << 3 | _CPUCLOCK_SCHED)

    def memory_bytes(self) -> tuple[int, int]:
        """Resident memory now: of the started process, and of all processes below it."""
        below = 0
        for process in self._process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                below += process.memory_info().rss
        return int(self._process.memory_info().rss), below

    def peak_bytes(self) -> int:
        """Peak resident memory of the started process."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@contextlib.contextmanager
def running(server: Server, setting: Setting) -> Iterator[Running]:
    """Run a server, from readiness on. Raises `StartError`."""
    with unwound(), tempfile.TemporaryDirectory(prefix="gb", dir="/tmp") as name:
        folder, port = Path(name), free_port()
        log = folder / "out"
        with log.open("wb") as out:
            process = subprocess.Popen(
                server.command(setting, port, folder),
                env=_clean_environment() | server.environ(setting),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            trusted = None
            if server.certificate is not None:
                trusted = ssl.create_default_context(cafile=server.certificate)
            url = f"http{'s' if trusted else ''}://127.0.0.1:{port}"
            alive = Running(url, psutil.Process(process.pid), trusted)
            _wait_until_ready(alive, process, log)
            _wait_until_quiet(alive)
            yield alive
        finally:
            _end(process)


def _clean_environment() -> dict[str, str]:
    """This environment without variables that configure gpufc or llama-server."""
    prefixes = ("GPUFC_", "LLAMA_ARG_")
    return {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}


def _wait_until_ready(alive: Running, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _is_ready(f"{alive.url}/health", alive.trusted):
            return
        time.sleep(0.05)
    last = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
    raise StartError(f"{process.args!r} did not become ready: {' / '.join(last)}")


def _is_ready(address: str, trusted: ssl.SSLContext | None) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5, context=trusted) as answer:
            return bool(answer.status == 200)
    except OSError:  # not listening yet, or a 503
        return False


def _wait_until_quiet(alive: Running) -> None:
    """Wait until the server's work after readiness is done."""
    deadline, before = time.monotonic() + QUIET_WITHIN_S, alive.cpu_s()
    while time.monotonic() < deadline:
        time.sleep(QUIET_FOR_S)
        now = alive.cpu_s()
        if abs(now - before) < QUIET_SHARE * QUIET_FOR_S:
            return
        before = now


def _end(process: subprocess.Popen[bytes]) -> None:
    children = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    finally:  # also if a signal has ended the wait
        if process.poll() is None:
            process.kill()
            process.wait(STOP_S)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
