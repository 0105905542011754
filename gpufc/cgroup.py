"""The limits that a container or service manager sets on this process (cgroup v2).

The kernel's description is Documentation/admin-guide/cgroup-v2.rst. A limit of any ancestor group
binds too. Without cgroup v2, or where a file cannot be read, there is no limit to report.
"""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

_MAX_DEPTH = 64
_MAX_FILE_BYTES = 64 * 1024


class Limits(Struct, frozen=True):
    """None where nothing is limited. `memory_free_bytes` counts reclaimable file cache as free."""

    cpus: float | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None


class Events(Struct, frozen=True):
    """What the limits have done to this process's group since it was made. None without cgroup v2.

    `throttled_us` is the time in microseconds in which the limit on processors held it back.
    """

    throttled_us: int | None = None
    oom_kills: int | None = None


def events(root: Path = ROOT, membership: Path = MEMBERSHIP) -> Events:
    """The events of the innermost group that tells them."""
    found = groups(root, membership)
    return Events(
        throttled_us=_first(found, "cpu.stat", "throttled_usec"),
        oom_kills=_first(found, "memory.events", "oom_kill"),
    )


def limits(root: Path = ROOT, membership: Path = MEMBERSHIP) -> Limits:
    """The tightest limits on this process, over its group and all groups above it."""
    cpus: list[float] = []
    totals: list[int] = []
    frees: list[int] = []
    for group in groups(root, membership):
        quota = _cpu_limit(group)
        if quota is not None:
            cpus.append(quota)
        total = _number(group / "memory.max")
        if total is not None:
            totals.append(total)
            frees.append(max(0, total - _memory_held(group)))
    return Limits(
        cpus=min(cpus, default=None),
        memory_bytes=min(totals, default=None),
        memory_free_bytes=min(frees, default=None),
    )


def groups(root: Path = ROOT, membership: Path = MEMBERSHIP) -> Sequence[Path]:
    """The folders of this process's group and of all groups above it, innermost first.

    Inside a container the kernel often names the group by the host's path, which does not exist
    there. The container's own group is mounted at `root`, which is always the last one.
    """
    for line in _text(membership).splitlines():
        if line.startswith("0::"):
            group = root / line[3:].strip("/")
            above = [folder for folder in group.parents if folder.is_relative_to(root)]
            return [group, *above][-_MAX_DEPTH:]
    return [root]


def _cpu_limit(group: Path) -> float | None:
    quota, _, period = _text(group / "cpu.max").strip().partition(" ")
    if not quota.isdigit() or not period.isdigit():
        return None
    return int(quota) / int(period) if int(period) else None


def _memory_held(group: Path) -> int:
    """Memory in use, less the file cache that the kernel drops on demand."""
    held = _number(group / "memory.current") or 0
    return held - (_entry(group / "memory.stat", "inactive_file") or 0)


def _first(folders: Sequence[Path], file: str, name: str) -> int | None:
    values = (_entry(folder / file, name) for folder in folders)
    return next((value for value in values if value is not None), None)


def _entry(path: Path, wanted: str) -> int | None:
    """One value of a file with lines `name value`."""
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == wanted and value.isdigit():
            return int(value)
    return None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    """The start of a small file; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES).decode("ascii", "replace")
    except OSError:
        return ""
