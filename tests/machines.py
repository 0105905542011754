"""A front and its worker hosts for tests: each host is a process of its own on loopback."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from gpufc import files
from supervisor.control.client import NotRunning
from tests.ports import free_port
from tests.service import COMMAND, Service, clean_environment, lives, service, wait_for


class Host:
    """One machine: its worker host, with the workers that it has started."""

    def __init__(
        self,
        folder: Path,
        name: str,
        join_file: Path | None,
        front: str | None,
        *,
        prefix: Sequence[str] = (),
        more: Sequence[str] = (),
    ) -> None:
        """`prefix` is a command that runs the host; `more` are options of it."""
        self.name = name
        self.folder = folder
        self._log = folder / f"{name}.out"
        arguments = ["--name", name, "--key-file", str(folder / f"{name}.json")]
        arguments += ["--runtime-dir", str(folder / name)]
        if join_file is not None:
            arguments += ["--join-file", str(join_file)]
        if front is not None:
            arguments += ["--front", front]
        arguments += more
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *COMMAND, "host", *arguments],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text()

    def processes(self) -> list[psutil.Process]:
        """The host and all that it has started."""
        try:
            host = psutil.Process(self.process.pid)
            return [host, *host.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def signal_all(self, number: int) -> None:
        """Send a signal to every process of the machine, the host first."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def end(self) -> None:
        """Kill it, with all that it has started."""
        found = self.processes()
        self.signal_all(signal.SIGKILL)
        self.process.wait(60)
        psutil.wait_procs(found, 60)


class Cluster:
    """A front whose workers all run on hosts."""

    def __init__(self, front: Service, folder: Path, address: str) -> None:
        """`address` is that on which the front listens for hosts."""
        self.front = front
        self.folder = folder
        self.address = address
        self.hosts: dict[str, Host] = {}

    def invite(self, file: str, n_hosts: int = 1) -> Path:
        """Write a join file."""
        path = self.folder / file
        content = self.front.control.invite_hosts(n_hosts)
        files.replace(path, json.dumps(content).encode())
        return path

    def join(self, name: str, join_file: Path | None = None, through: str | None = None) -> Host:
        """Start a host by a join file of its own, or by this one. `through` is the address that it
        dials, instead of the front's."""
        join_file = join_file or self.invite(f"{name}.join")
        host = self.hosts[name] = Host(self.folder, name, join_file, through)
        return host

    def end_later_front(self) -> None:
        """After an upgrade `front` is no process of this one any more."""
        if self.front.process.poll() is not None:
            with contextlib.suppress(NotRunning):
                list(self.front.control.stop(now=True))

    @contextlib.contextmanager
    def another_front(self) -> Iterator[None]:
        """Kill the front, and start another one of the same configuration in its place."""
        front = psutil.Process(self.front.status()["front"]["pid"])  # after an upgrade another one
        front.kill()
        wait_for(lambda: not lives(front), why="the front is gone")
        config = self.folder / "config.toml"
        with service(self.folder / "run", "--config", str(config), ready=False) as front:
            wait_for(lambda: _answers(front), why="the front answers")
            self.front = front
            yield

    def come_back(self, name: str) -> Host:
        """Start a host that has joined before again. It needs no join file."""
        host = self.hosts[name] = Host(self.folder, name, None, None)
        return host

    def rows(self) -> dict[str, dict[str, Any]]:
        """`hosts` of `/stats`, by machine."""
        return {row["machine"]: row for row in self.front.status()["hosts"]}

    def workers(self) -> list[dict[str, Any]]:
        return list(self.front.status()["workers"])

    def ready(self) -> dict[str, int]:
        """Machine → pid of each ready worker."""
        rows = self.workers()
        return {row["machine"]: row["pid"] for row in rows if row["state"] == "ready"}

    def wait_ready(self, *machines: str) -> dict[str, int]:
        """Wait until each of these machines has a ready worker."""

        def found() -> dict[str, int] | None:
            with contextlib.suppress(NotRunning):
                ready = self.ready()
                return ready if set(machines) <= set(ready) else None
            return None

        return wait_for(found, 60.0, f"workers are ready on {', '.join(machines)}")


@contextlib.contextmanager
def cluster(
    folder: Path,
    *machines: str,
    replicas: int | None = None,
    script: str = "step_ms=5",
    more: str = "",
    model: Path | None = None,
    of_model: str = "",
    listen: str = "127.0.0.1",
) -> Iterator[Cluster]:
    """A front with `replicas` workers (one for each machine by default), and hosts that have
    joined and whose workers are ready. `more` are lines of its configuration, `of_model` of its
    model's, and `model` is a real one in the place of the fake engine. It listens for hosts on
    `listen`."""
    config = folder / "config.toml"
    address = f"{listen}:{free_port()}"
    config.write_text(
        f'cluster_listen = "{address}"\n'
        f'cluster_dir = "{folder / "cluster"}"\n'
        f"shutdown_timeout_s = 1.0\n{more}\n"
        '[models.fake]\nspread = "machines"\n'
        f"replicas = {replicas or max(1, len(machines))}\n"
        + (
            f'backend = "fake"\nfake_script = "{script}"\n'
            if model is None
            else f'model_path = "{model}"\nn_ctx = 1024\n'
        )
        + f"{of_model}\n"
    )
    with service(folder / "run", "--config", str(config), ready=False) as front:
        wait_for(lambda: _answers(front), why="the front answers")
        made = Cluster(front, folder, address)
        try:
            for name in machines:
                made.join(name)
            if machines:
                made.wait_ready(*machines)
            yield made
        finally:
            for host in made.hosts.values():
                host.end()
            made.end_later_front()


def _answers(front: Service) -> bool:
    if front.process.poll() is not None:
        raise AssertionError(f"start ended with {front.process.returncode}: {front.output}")
    with contextlib.suppress(NotRunning):
        return bool(front.status())
    return False
