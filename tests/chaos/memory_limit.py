"""A cgroup of its own for a service, with a limit of its memory, where one may be made."""

import contextlib
import errno
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
EMPTY_S = 5.0


@contextlib.contextmanager
def memory_limit(limit_bytes: int) -> Iterator[Path]:
    """The file in which a process writes its pid to be limited. Raises `OSError`."""
    parent, name = _own()
    group = parent / f"chaos-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        (group / name).write_text(str(limit_bytes))
        yield group / "cgroup.procs"
    finally:
        _remove(group)


def available() -> bool:
    """Whether this process may make such a group here."""
    try:
        with memory_limit(1 << 30):
            return True
    except OSError:
        return False


def _own() -> tuple[Path, str]:
    """Our own group, in which a new one can be made, and the name of its limit: v1's, else v2's."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _seen(ROOT / "memory", path), "memory.limit_in_bytes"
    return _seen(ROOT, path), "memory.max"


def _seen(base: Path, path: str) -> Path:
    """Inside a container our group may be mounted as the root."""
    inside = base / path.lstrip("/")
    return inside if inside.is_dir() else base


def _remove(group: Path) -> None:
    """What has been killed in it may take a moment to leave it."""
    deadline = time.monotonic() + EMPTY_S
    while True:
        try:
            group.rmdir()
            return
        except OSError as err:
            if err.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.02)
