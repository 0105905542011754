"""SHA-256 of files, remembered: a file of tens of gigabytes is read once, not at each start."""

import contextlib
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from gpufc import files
from gpufc.errors import GpufcError
from gpufc.file_samples import sample_digest

PIECE_BYTES = 1 << 20
MOST_KEPT = 4096

Stamp = tuple[int, int, int]
"""Inode, size and time of change: a file with another one is read again."""

Told = Callable[[int], None]


class Known(Struct, frozen=True):
    """A file's checksum, as of its stamp."""

    stamp: Stamp
    sha256: str


class Over(GpufcError):
    """A file is read for a job that has ended. Raised by what is `told`, to end the reading."""


class Changed(OSError):
    """The file was written to while it was read."""


class Checksums:
    """The checksums of files by path. All methods may block; any thread may call them.

    `path` is the file in which they are kept; None: in memory. What cannot be kept is forgotten.
    Where a method is given a way `via` which the file is read, that counts, not what its path leads
    to by now.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        self._samples: dict[str, tuple[Stamp, str]] = {}
        if path is not None:
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                self._known = msgspec.json.decode(path.read_bytes(), type=dict[str, Known])

    def known(self, path: Path, via: Path | None = None) -> str | None:
        """The checksum of a file, if it was read before and is the same. Raises `OSError`."""
        found = self._known.get(str(path))
        is_same = found is not None and found.stamp == stamp_of(via or path)
        return found.sha256 if found is not None and is_same else None

    def sha256(self, path: Path, told: Told = lambda n_bytes: None, via: Path | None = None) -> str:
        """The checksum of a file in hex: remembered, or read. `told` gets the bytes read so far.

        Raises `OSError`, and `Changed` for a file that changes meanwhile."""
        found, via = self.known(path, via), via or path
        if found is not None:
            return found
        before, digest, n_bytes = stamp_of(via), hashlib.sha256(), 0
        with via.open("rb", buffering=0) as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
                n_bytes += len(piece)
                told(n_bytes)
        if stamp_of(via) != before:
            raise Changed(f"{path} changed while it was read")
        self.remember(path, digest.hexdigest(), via)
        return digest.hexdigest()

    def remember(self, path: Path, sha256: str, via: Path | None = None) -> None:
        """The checksum of a file that has just been verified. Raises `OSError`."""
        known = Known(stamp_of(via or path), sha256)
        with self._lock:
            self._known.pop(str(path), None)
            self._known[str(path)] = known
            while len(self._known) > MOST_KEPT:
                del self._known[next(iter(self._known))]
            self._save()

    def sample(self, path: Path, via: Path | None = None) -> str:
        """The file's `sample_digest`, remembered as long as this object lives. Raises `OSError`."""
        via = via or path
        stamp = stamp_of(via)
        found = self._samples.get(str(path))
        if found is None or found[0] != stamp:
            found = self._samples[str(path)] = stamp, sample_digest(via)
        return found[1]

    def _save(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                files.replace(self._path, msgspec.json.encode(self._known))


def stamp_of(path: Path) -> Stamp:
    """A file's stamp. Raises `OSError`."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
