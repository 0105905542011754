"""Memory and cores of this machine that the process may use, within its cgroups' limits."""

import math
import os
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
