"""The log of one worker's place: opened by name, read by descriptor.

The name may vanish while the log is in use. The descriptor still reads the file that the running
process writes to; the next process gets a file of that name again.
"""

import os
from pathlib import Path


class WorkerLog:
    """Holds one descriptor from the first `open` until `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def open(self) -> int:
        """Open or make the file of that name. Returns its size. Raises `OSError`."""
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC
        fresh = os.open(self._path, flags, 0o600)
        self.close()
        self._fd = fresh
        return self.size()

    def size(self) -> int:
        """Its size now; 0 if it has never been opened."""
        return os.fstat(self._fd).st_size if self._fd >= 0 else 0

    def since(self, mark: int, limit_bytes: int) -> bytes:
        """The last bytes that were written after `mark`. Blocks while it reads the page cache."""
        if self._fd < 0:
            return b""
        size = self.size()
        start = mark if mark <= size else 0  # the log has been emptied since
        return os.pread(self._fd, limit_bytes, max(start, size - limit_bytes))

    def close(self) -> None:
        """May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
