"""Log files: appended to by name, and bounded in size while processes write to them.

A log has at most two files: `NAME` and, once it has been over the limit, `NAME.1`. Its last lines
are copied there and the log is emptied in place. Writers keep their descriptors, which must append.
"""

import contextlib
import logging
import os
import shutil
import time
from pathlib import Path

logger = logging.getLogger(__name__)

LIMIT_BYTES = 16 * 1024 * 1024
LOOK_S = 2.0


def older(log: Path) -> Path:
    """The file with the log's older lines."""
    return log.with_name(f"{log.name}.1")


def rotate(log: Path, limit_bytes: int = LIMIT_BYTES) -> None:
    """Empty a log that is over the limit. Its lines become those of `older`.

    Blocks while the bytes are copied. A line that is written in the meantime may be lost. On a full
    disk the older lines are dropped instead.
    """
    try:
        if log.stat().st_size <= limit_bytes:
            return
        try:
            _copy(log, older(log), 2 * limit_bytes)
        except OSError as err:
            older(log).unlink(missing_ok=True)
            logger.warning("older_log_lines_dropped path=%s: %s", log, err)
        os.truncate(log, 0)
    except FileNotFoundError:
        return
    except OSError as err:
        logger.warning("log_not_rotated path=%s: %s", log, err)


def _copy(source: Path, target: Path, limit_bytes: int) -> None:
    """Copy the last lines, at most `limit_bytes`, to a private file of the same user."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with source.open("rb") as old, open(os.open(target, flags, 0o600), "wb") as new:
        if (excess := os.fstat(old.fileno()).st_size - limit_bytes) > 0:
            old.seek(excess)
            old.readline()
        shutil.copyfileobj(old, new)


class LogFile:
    """A log that is appended to by name: made anew when its name or its folder has vanished.

    Used by one thread. The file is private.
    """

    def __init__(self, path: Path) -> None:
        """Raises `OSError`."""
        self._path = path
        self._fd = self._open()
        self._looked_at = time.monotonic()

    def write(self, text: str) -> None:
        """Append. Raises `OSError`."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._reopen_if_gone()
        left = text.encode("utf-8", "backslashreplace")
        while left:
            left = left[os.write(self._fd, left) :]

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._path, flags, 0o600)

    def _reopen_if_gone(self) -> None:
        try:
            found = self._path.stat()
        except OSError:
            found = None
        ours = os.fstat(self._fd)
        if found is not None and (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
            return
        with contextlib.suppress(OSError):  # the old file is still written to
            fresh = self._open()
            os.close(self._fd)
            self._fd = fresh


def rotate_folder(folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
    """Rotate the logs of a folder: the front's, the workers', and redirected output. Blocks."""
    with contextlib.suppress(OSError):
        for log in (*folder.glob("*.log"), *folder.glob("*.out")):
            if not log.is_symlink():
                rotate(log, limit_bytes)
