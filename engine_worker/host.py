"""Memory and cores of this machine that the process may use, within its cgroups' limits."""

import math
import os
import time
from pathlib import Path

from gpufc import cgroup

UNKNOWN_BYTES = 1 << 30
"""Taken to be available where neither the system nor a cgroup tells."""


def available_memory(proc: Path = Path("/proc"), cgroups: Path = cgroup.ROOT) -> int:
    """Bytes of host memory that this process could still allocate."""
    limit = cgroup.limits(cgroups, proc / "self" / "cgroup").memory_free_bytes
    known = [n_bytes for n_bytes in (_available(proc), limit) if n_bytes is not None]
    return min(known, default=UNKNOWN_BYTES)


def usable_cores(proc: Path = Path("/proc"), cgroups: Path = cgroup.ROOT) -> int:
    """Physical cores that this process may run on, at least 1.

    Two hyperthreads of one core share its vector units: more threads than cores decode slower.
    """
    n_cores = len({_core_of(cpu) for cpu in os.sched_getaffinity(0)})
    limit = cgroup.limits(cgroups, proc / "self" / "cgroup").cpus
    return max(1, n_cores if limit is None else min(n_cores, math.ceil(limit)))


SPARED_FROM = 8
"""With so many cores one of them computes no steps of single tokens. Measured on 16 cores."""


def decoding_threads(n_cores: int) -> int:
    """Threads for steps of few tokens. Front, link and clients run at each of these, and would
    interrupt a thread for which all others wait: of many cores one is left to them."""
    return n_cores - 1 if n_cores >= SPARED_FROM else n_cores


def logical_cores() -> int:
    """Logical cores that this process may run on."""
    return len(os.sched_getaffinity(0))


WINDOW_S = 0.25
"""The kernel counts processor time in hundredths of a second: in so long a window an eighth of a
core can be told."""


LOOKS, LOOK_S = 4, 0.001
"""Looks for running threads, and the time between them."""


class CoreUse:
    """How much of its cores is used by other processes. One thread may ask."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._stat = proc / "stat"
        self._names = {f"cpu{cpu}" for cpu in os.sched_getaffinity(0)}
        self._window_began = time.monotonic()
        self._before = self._seconds()

    def by_others(self, now: float) -> tuple[float, float] | None:
        """Cores that others used in the window that has ended, and its seconds; None until it has.

        `now` is on the monotonic clock. A core that a hypervisor gave to another machine counts as
        used by others.
        """
        elapsed = now - self._window_began
        if elapsed < WINDOW_S:
            return None
        seconds = self._seconds()
        used, self._before, self._window_began = seconds - self._before, seconds, now
        return max(0.0, used / elapsed), elapsed

    def others_run(self) -> bool:
        """Whether another thread of the machine runs or waits for a core now, at each of a few
        looks: one that only passes something on is over at the next look. True if the kernel does
        not say."""
        for look in range(LOOKS):
            if look:
                time.sleep(LOOK_S)
            for line in _read(self._stat).splitlines():
                if line.startswith("procs_running ") and int(line.split()[1]) < 2:
                    return False
        return True

    def _seconds(self) -> float:
        """Seconds that the cores were busy, less this process's own, since some moment."""
        ticks = 0
        for line in _read(self._stat).splitlines():
            name, *numbers = line.split()
            if name in self._names:
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, numbers[:8])
                ticks += user + nice + system + irq + softirq + steal
        own = os.times()
        return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system


def _available(proc: Path) -> int | None:
    for line in _read(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1] and value.split()[0].isdigit():
            return int(value.split()[0]) * 1024
    return None


def _core_of(cpu: int) -> tuple[str, str]:
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    core = _read(topology / "core_id").strip()
    return _read(topology / "physical_package_id").strip(), core or f"cpu{cpu}"


def _read(path: Path) -> str:
    """A small file's text; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(65_536).decode("ascii", "replace")
    except OSError:
        return ""
