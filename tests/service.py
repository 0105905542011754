"""A real service for tests: `gpufc-supervisor start` as a process of its own, on a free port."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import psutil

from supervisor.control.client import ControlClient, NotRunning
from supervisor.runtime_dir import RuntimeDir
from tests.endings import unwound

T = TypeVar("T")

COMMAND = [sys.executable, "-c", "from supervisor.cli import main; main()"]
POLL_S = 0.02
START_S = 180.0
"""Guards against a hang: a start takes over a minute where there is far more work than cores."""
STOP_S = 15.0
"""An operator's patience. A front that needs longer to stop is killed, and that fails no test."""


def wait_for(
    what: Callable[[], T], timeout_s: float = 60.0, why: str = "", *, poll_s: float = POLL_S
) -> T:
    """Ask again until the answer is true, and return it. Fails with `why` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {why or what}")
        time.sleep(poll_s)


def lives(process: psutil.Process) -> bool:
    """Whether a process runs. One that its adoptive parent has yet to reap does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that would configure gpufc."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GPUFC_")}


class Service:
    """One running front with its workers. Use `service(...)`, which also ends it."""

    def __init__(
        self,
        runtime_dir: Path,
        arguments: list[str],
        environ: dict[str, str],
        cgroup: Path | None = None,
        prefix: Sequence[str] = (),
        output: int | None = None,
    ) -> None:
        self.runtime = RuntimeDir.find(str(runtime_dir))
        self._log = runtime_dir.parent / f"{runtime_dir.name}.out"
        log = self._log.open("wb")
        self.process = subprocess.Popen(
            [
                *_joining(cgroup),
                *prefix,
                *(*COMMAND, "start", "--port", "0", "--runtime-dir", str(runtime_dir)),
                *arguments,
            ],
            env=clean_environment() | environ,
            stdin=subprocess.DEVNULL,
            stdout=log if output is None else output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.control = ControlClient(self.runtime.control_socket)
        self.front = psutil.Process(self.process.pid)

    @property
    def output(self) -> str:
        """What `start` has printed so far."""
        return self._log.read_text()

    def printed_after(self, label: str) -> str:
        """What stands behind a label in the lines that `start` prints. It prints them once it is
        ready, and may answer requests a moment before."""
        line = re.compile(f"{re.escape(label)}(.*)\n")
        return wait_for(lambda: line.search(self.output), why=f"{label!r} is printed")[1]

    def status(self) -> dict[str, Any]:
        return self.control.status()

    def worker(self) -> dict[str, Any]:
        """The row of the first worker in `/stats`."""
        return self.status()["workers"][0]

    def stepped_since(self, then: float) -> set[str]:
        """The names of the workers that have computed since that unix time."""
        rows = self.status()["workers"]
        return {row["name"] for row in rows if (row["last_step_at"] or 0.0) > then}

    def wait_all_ready(self, n_workers: int) -> None:
        """Wait until so many workers are ready, and no other one is to come."""
        states = ["ready"] * n_workers
        wait_for(lambda: [row["state"] for row in self.status()["workers"]] == states, START_S)

    def wait_ready(self) -> None:
        """Wait until a token could be produced."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"start ended with {self.process.returncode}: {self.output}")
            with contextlib.suppress(NotRunning):
                return self.worker()["state"] == "ready"
            return False

        wait_for(ready, START_S, "the service is ready")

    @property
    def url(self) -> str:
        """The base address, such as `http://127.0.0.1:41234`."""
        return str(self.status()["front"]["addresses"][0]).rstrip("/")

    def wait_idle(self) -> None:
        """Wait until a worker is ready and nothing runs or waits."""

        def idle() -> bool:
            status = self.status()
            requests = status["requests"]
            is_ready = status["workers"][0]["state"] == "ready"
            return is_ready and not requests["running"] and not requests["waiting"]

        wait_for(idle, why="the service is idle")

    def kill_worker(self, number: int = signal.SIGKILL) -> int:
        """Send a signal to the worker's process; returns the epoch that it hit."""
        row = wait_for(
            lambda: (found := self.worker())["state"] == "ready" and found, why="a ready worker"
        )
        os.kill(row["pid"], number)
        return int(row["epoch"])

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The worker's process is stopped meanwhile, so nothing that it runs can end. Streams are
        whole even if the watchdog replaces it before it goes on."""
        pid = int(self.worker()["pid"])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def wait_epoch_after(self, epoch: int, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until a later epoch than this one is ready; returns its row."""
        return wait_for(
            lambda: (
                (found := self.worker())["state"] == "ready" and found["epoch"] > epoch and found
            ),
            timeout_s,
            f"an epoch after {epoch} is ready",
        )

    def end(self) -> None:
        """Stop it the way an operator would, and not more kindly if that does not work, or if a
        signal ends the wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_S)
            finally:
                if self.process.poll() is None:
                    self.process.kill()
                    self.process.wait(60)


class Gains:
    """How far a service's counters have moved since this was made: for tests that share one."""

    def __init__(self, running: Service) -> None:
        self._running = running
        wait_for(self._is_idle, why="what other tests have left is still open")
        self._before = running.status()

    def _is_idle(self) -> bool:
        requests = self._running.status()["requests"]
        return not (requests["running"] or requests["waiting"])

    def of(self, section: str, *names: str) -> tuple[int, ...]:
        """The gain of each counter in one section of the status document."""
        now = self._running.status()
        return tuple(now[section][name] - self._before[section][name] for name in names)

    def restarts(self) -> int:
        """The gain of the first worker's restarts."""
        before = self._before["workers"][0]["restarts"]
        return int(self._running.worker()["restarts"] - before)


def _joining(cgroup: Path | None) -> list[str]:
    """A program becomes a member of a cgroup before it is run, and so all that it starts."""
    return [] if cgroup is None else ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup)]


def limited(n_descriptors: int) -> list[str]:
    """A command that executes its arguments as a program with at most so many descriptors."""
    return ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(n_descriptors)]


@contextlib.contextmanager
def service(
    runtime_dir: Path,
    *arguments: str,
    environ: dict[str, str] | None = None,
    ready: bool = True,
    cgroup: Path | None = None,
    prefix: Sequence[str] = (),
    output: int | None = None,
) -> Iterator[Service]:
    """A running service; with `ready`, one that has loaded its model. `cgroup` is the file in which
    the members of its cgroup are written. `prefix` is a command that executes its arguments.
    `output` is the descriptor for standard output and error instead of a file."""
    with unwound():
        running = Service(runtime_dir, list(arguments), environ or {}, cgroup, prefix, output)
        try:
            if ready:
                running.wait_ready()
            yield running
        finally:
            running.end()


async def sse_events(response: aiohttp.ClientResponse) -> list[str]:
    """The data of all events of a stream, in order; comments are passed over."""
    text = (await response.read()).decode()
    return [line[6:] for line in text.split("\n") if line.startswith("data: ")]


def zombies(front: psutil.Process) -> list[int]:
    """Children of a front that have ended and are not reaped yet."""
    found = []
    for child in front.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return found
