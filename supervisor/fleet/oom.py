"""The kernel's count of out-of-memory kills, the only trace that such a kill leaves.

The counter is the narrowest that exists: of this process's cgroup (v2, then v1), else the
machine's. Reading it once is enough: the kernel counts before it sends the SIGKILL.
"""

from pathlib import Path

from gpufc import cgroup

MACHINE = Path("/proc/vmstat")


class OomCounter:
    """Explains each death at most once: a count that one worker's death has claimed does not
    explain the next death. Shared by all workers of a fleet, used from the event loop."""

    def __init__(self, files: tuple[Path, ...] | None = None) -> None:
        self._file = _first_with_counter(files or (*_own_cgroup(), MACHINE))
        self._explained = self._read()

    def mark(self) -> None:
        """Forget the kills so far: they are older than the process that starts now."""
        self._explained = self._read()

    def claim(self) -> bool:
        """Whether a kill has been counted that explains the death at hand."""
        if self._read() <= self._explained:
            return False
        self._explained += 1
        return True

    def _read(self) -> int:
        return 0 if self._file is None else _count(self._file) or 0


def _own_cgroup() -> tuple[Path, ...]:
    """Files that may hold this cgroup's counter, of version 2 and then of version 1."""
    version_2 = [group / "memory.events" for group in cgroup.groups()]
    try:
        lines = cgroup.MEMBERSHIP.read_text().splitlines()
    except OSError:
        return tuple(version_2)
    base = cgroup.ROOT / "memory"
    inside = [line.split(":", 2)[2].lstrip("/") for line in lines if ":memory:" in line]
    return (*version_2, *(base / path / "memory.oom_control" for path in (*inside, "")))


def _first_with_counter(files: tuple[Path, ...]) -> Path | None:
    return next((file for file in files if _count(file) is not None), None)


def _count(file: Path) -> int | None:
    """The value of the line `oom_kill N`; None if there is none."""
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        return None
    return None
