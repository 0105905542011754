"""Machines in network, process and mount namespaces of this one: cables that can be cut.

    front (this namespace) ═ gf…  198.18.….1 ─── 198.18.….2  eth0 of a namespace of that name

Each machine has a cable of its own to the front, and its own process numbers. Folders in `hidden`
are empty there, so it does not see the front's models. Needs root, `ip` and `unshare`.
"""

import contextlib
import functools
import ipaddress
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tests.machines import Cluster, Host

N_SUBNETS = 1 << 15
"""Of 198.18.0.0/15, which is for tests (RFC 2544), with four addresses each."""


@functools.cache
def lacking() -> str | None:
    """What this machine lacks for namespaces; None if they can be made."""
    for program in ("ip", "unshare", "mount"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        with _network() as cable:
            cable.inside("unshare", "-pfm", "--mount-proc", "true")
    except subprocess.CalledProcessError as err:
        return f"namespaces cannot be made: {err.stderr.strip() or err}"
    return None


class Cable:
    """The connection of one machine to the front."""

    def __init__(self) -> None:
        subnet = random.randrange(N_SUBNETS)
        self.namespace = f"gf{os.getpid() % 100_000}-{subnet:x}"
        first = ipaddress.IPv4Address("198.18.0.0") + 4 * subnet
        self.front, self.machine = str(first + 1), str(first + 2)

    def cut(self) -> None:
        """No packet passes, and neither end is told."""
        _run("ip", "link", "set", self.namespace, "down")

    def heal(self) -> None:
        """Undo all faults."""
        _run("ip", "link", "set", self.namespace, "up")
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("ip", "route", "del", "blackhole", f"{self.machine}/32")
        with contextlib.suppress(subprocess.CalledProcessError):
            self.inside("ip", "route", "del", "blackhole", f"{self.front}/32")

    def lose_to_front(self) -> None:
        """Packets to the front vanish. Those to the machine pass."""
        self.inside("ip", "route", "add", "blackhole", f"{self.front}/32")

    def lose_to_machine(self) -> None:
        """Packets to the machine vanish. Those to the front pass."""
        _run("ip", "route", "add", "blackhole", f"{self.machine}/32")

    def inside(self, *command: str) -> None:
        """Run a command in the machine's network."""
        _run("ip", "netns", "exec", self.namespace, *command)


class SpaceHost(Host):
    """A host in its own namespaces. Its `process` is `unshare`, which ends with it."""

    @property
    def main(self) -> psutil.Process:
        """The worker host itself."""
        return psutil.Process(self.process.pid).children()[0]

    def pid_of(self, number: int) -> int:
        """The process that has a number on its machine, as it is numbered here."""
        for process in self.processes():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                line = next(one for one in status.splitlines() if one.startswith("NSpid:"))
                if line.split()[2:] == [str(number)]:
                    return process.pid
        raise ProcessLookupError(f"{self.name} has no process {number}")


class Space:
    """Machines around a front, as long as `space` lasts."""

    def __init__(self, running: Cluster, hidden: Sequence[Path]) -> None:
        self.running = running
        self.cables: dict[str, Cable] = {}
        self._hidden = hidden
        self._stack = contextlib.ExitStack()

    def join(self, name: str) -> SpaceHost:
        """Connect a machine and start its host."""
        cable = self.cables[name] = self._stack.enter_context(_network())
        return self._start(name, cable, self.running.invite(f"{name}.join"))

    def come_back(self, name: str) -> SpaceHost:
        """Start the host of a machine again: it was switched off."""
        return self._start(name, self.cables[name], None)

    def host(self, name: str) -> SpaceHost:
        found = self.running.hosts[name]
        assert isinstance(found, SpaceHost)
        return found

    def models_dir(self, name: str) -> Path:
        """The machine's models folder."""
        return self.running.folder / f"{name}-models"

    def close(self) -> None:
        for host in self.running.hosts.values():
            host.end()
        self._stack.close()

    def _start(self, name: str, cable: Cable, join_file: Path | None) -> SpaceHost:
        port = self.running.address.rpartition(":")[2]
        hide = " && ".join(
            [*(f"mount -t tmpfs none '{path}'" for path in self._hidden), 'exec "$@"']
        )
        prefix = [
            *("ip", "netns", "exec", cable.namespace),
            *("unshare", "-p", "-f", "-m", "--mount-proc", "--kill-child"),
            *("sh", "-c", hide, "sh"),
        ]
        host = SpaceHost(
            self.running.folder,
            name,
            join_file,
            f"{cable.front}:{port}",
            prefix=prefix,
            more=("--models-dir", str(self.models_dir(name))),
        )
        self.running.hosts[name] = host
        return host


@contextlib.contextmanager
def space(running: Cluster, *names: str, hidden: Sequence[Path] = ()) -> Iterator[Space]:
    """Machines of these names that join a front. It has to listen on all addresses."""
    made = Space(running, hidden)
    try:
        for name in names:
            made.join(name)
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def _network() -> Iterator[Cable]:
    """A namespace with a cable. Gone afterwards, with all that runs in it cut off."""
    cable = Cable()
    name = cable.namespace
    try:
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "addr", "add", f"{cable.front}/30", "dev", name)
        _run("ip", "link", "set", name, "up")
        cable.inside("ip", "addr", "add", f"{cable.machine}/30", "dev", "eth0")
        cable.inside("ip", "link", "set", "eth0", "up")
        cable.inside("ip", "link", "set", "lo", "up")
        yield cable
    finally:
        for command in (("ip", "link", "del", name), ("ip", "netns", "del", name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _run(*command)
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("ip", "route", "del", "blackhole", f"{cable.machine}/32")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
