"""Log files: appended to by name, and bounded in size while processes write to them.

A log has at most two files: `NAME` and, once it has been over the limit, `NAME.1`.

The front's log is written by `LogFile`, which follows the name. It is renamed, and no line is lost.
Other logs are written through descriptors that nothing outside the writer can replace: the standard
streams of workers and plugins, and of a detached front. Their last lines are copied and the log is
emptied in place, so the descriptors must append. The kernel has no operation that empties a file
only if nothing was appended since the last read: a line between the two is lost.
"""

import contextlib
import logging
import os
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

LIMIT_BYTES = 16 * 1024 * 1024
LOOK_S = 2.0

FRONT_LOG = "front.log"
"""A log whose every writer is a `LogFile`. During an upgrade there are two."""


def older(log: Path) -> Path:
    """The file with the log's older lines."""
    return log.with_name(f"{log.name}.1")


def rotate(log: Path, limit_bytes: int = LIMIT_BYTES) -> None:
    """Empty a log that is over the limit. Its lines become those of `older`, at most the last
    `2 * limit_bytes`.

    Blocks while bytes are copied. If the disk is full then, the older lines are dropped instead.
    """
    try:
        size = log.stat().st_size
        if size <= limit_bytes:
            return
        if log.name == FRONT_LOG and size <= 2 * limit_bytes:
            os.replace(log, older(log))
            os.close(_opened(log))
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


def _opened(log: Path) -> int:
    """A descriptor that appends to a private file of this name. Raises `OSError`."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(log, flags, 0o600)


def _copy(source: Path, target: Path, limit_bytes: int) -> None:
    """Copy the last lines, at most `limit_bytes`, to a private file of the same user."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with source.open("rb") as old, open(os.open(target, flags, 0o600), "wb") as new:
        if (excess := os.fstat(old.fileno()).st_size - limit_bytes) > 0:
            old.seek(excess)
            old.readline()
        shutil.copyfileobj(old, new)


class LogFile:
    """A log that is appended to by name: made anew when it was renamed, or its folder has vanished.

    Used by one thread. The file is private.
    """

    def __init__(self, path: Path) -> None:
        """Raises `OSError`."""
        self._path = path
        self._fd = _opened(path)

    def write(self, text: str) -> None:
        """Append. Raises `OSError`."""
        self._reopen_if_gone()
        left = text.encode("utf-8", "backslashreplace")
        while left:
            left = left[os.write(self._fd, left) :]

    def _reopen_if_gone(self) -> None:
        try:
            found = self._path.stat()
        except OSError:
            found = None
        ours = os.fstat(self._fd)
        if found is not None and (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
            return
        with contextlib.suppress(OSError):  # the old file is still written to
            fresh = _opened(self._path)
            os.close(self._fd)
            self._fd = fresh


def rotate_folder(folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
    """Rotate the logs of a folder: the front's, the workers', and redirected output. Blocks."""
    with contextlib.suppress(OSError):
        for log in (*folder.glob("*.log"), *folder.glob("*.out")):
            if not log.is_symlink():
                rotate(log, limit_bytes)
