"""What of this machine the process may use: memory and cores, within its cgroups' limits."""

import os
from collections.abc import Sequence
from pathlib import Path


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of host memory that this process could still take: the system's, within cgroup v2's.

    What cannot be read does not limit; with nothing readable it is 1 GiB.
    """
    limits = [*_meminfo(proc), *_cgroup_rooms(proc, cgroups)]
    return max(0, min(limits)) if limits else 1 << 30


def _meminfo(proc: Path) -> Sequence[int]:
    for line in _read(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1] and value.split()[0].isdigit():
            return [int(value.split()[0]) * 1024]
    return []


def _cgroup_folders(proc: Path, cgroups: Path) -> Sequence[Path]:
    """This process's cgroup and all above it: each of them may have a limit."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        if line.startswith("0::"):
            folder = cgroups / line[3:].strip("/")
            within = [place for place in folder.parents if place.is_relative_to(cgroups)]
            return [folder, *within][:64]
    return [cgroups]


def _cgroup_rooms(proc: Path, cgroups: Path) -> Sequence[int]:
    rooms = []
    for folder in _cgroup_folders(proc, cgroups):
        limit, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            rooms.append(int(limit) - int(used) + _reclaimable(folder))
    return rooms


def _reclaimable(folder: Path) -> int:
    """Page cache counts as used, and goes when it is needed."""
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file" and value.isdigit():
            return int(value)
    return 0


def usable_cores(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Physical cores that this process may run on, within cgroup v2's CPU quota; at least 1.

    Two hyperthreads of one core share its vector units: more threads than cores decode slower.
    """
    cpus = os.sched_getaffinity(0)
    cores = {_core_of(cpu) for cpu in cpus}
    n_cores = len(cores)
    for folder in _cgroup_folders(proc, cgroups):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            n_cores = min(n_cores, -(-int(quota) // int(period)))
    return max(1, n_cores)


def _core_of(cpu: int) -> tuple[str, str]:
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    core = _read(topology / "core_id").strip()
    return _read(topology / "physical_package_id").strip(), core or f"cpu{cpu}"


def _read(path: Path) -> str:
    """At most 64 KiB of a small file's text; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(65_536).decode("ascii", "replace")
    except OSError:
        return ""
