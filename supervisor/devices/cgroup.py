"""The limits that a container or service manager sets on this process (cgroup v2).

The kernel's own description: Documentation/admin-guide/cgroup-v2.rst. A limit of any ancestor
binds too, hence the walk upwards. Without cgroup v2 there are no limits to report.
"""

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


class Limits(Struct, frozen=True):
    """None where nothing is limited. `memory_free_bytes` counts reclaimable file cache as free."""

    cpus: float | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None


def read(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> Limits:
    """The tightest limits on this process, over its group and all groups above it."""
    cpus: list[float] = []
    limits: list[int] = []
    frees: list[int] = []
    for group in _groups(root, membership):
        quota = _cpu_limit(group)
        if quota is not None:
            cpus.append(quota)
        limit = _number(group / "memory.max")
        if limit is not None:
            limits.append(limit)
            frees.append(max(0, limit - _memory_held(group)))
    return Limits(
        cpus=min(cpus, default=None),
        memory_bytes=min(limits, default=None),
        memory_free_bytes=min(frees, default=None),
    )


def _groups(root: Path, membership: Path) -> Iterator[Path]:
    for line in _text(membership).splitlines():
        hierarchy, _, path = line.split(":", 2)
        if hierarchy == "0":
            group = root / path.lstrip("/")
            yield group
            while group != root and root in group.parents:
                group = group.parent
                yield group


def _cpu_limit(group: Path) -> float | None:
    fields = _text(group / "cpu.max").split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    quota, period = fields
    return int(quota) / int(period) if int(period) else None


def _memory_held(group: Path) -> int:
    held = _number(group / "memory.current") or 0
    for line in _text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file" and value.isdigit():
            return held - int(value)
    return held


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
