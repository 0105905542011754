"""A file that arrives in pieces, from whatever source: resumed after a cut, checked, named at once.

The bytes gather in `NAME.part` beside the place, with a note of what they belong to. A transfer
that ends early goes on there, by this process or a later one. Only a whole and right file gets the
name. No byte that the source sends decides about a path.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from gpufc.amount import amount
from gpufc.errors import GpufcError

PIECE_BYTES = 1 << 20
SYNC_BYTES = 64 * 1024 * 1024
"""After so many bytes they are written to the disk. A slow disk slows the transfer then, instead of
standing still for minutes at the end of the file, which looks like a hang."""

SPARE_BYTES = 256 * 1024 * 1024
"""Free space that a download leaves on the disk."""


class DownloadFailed(GpufcError):
    """A file that cannot be had. The text is for people."""


class NoSpace(DownloadFailed):
    """The disk lacks the space."""


class WrongChecksum(DownloadFailed):
    """All bytes have come, and the file is another one. Nothing is kept of it."""


class InUse(DownloadFailed):
    """Another process writes the same file."""


class PartFile:
    """One file on its way. All methods may block. `opened` is entered before bytes are taken."""

    def __init__(
        self, folder: Path, name: str, source: str, size: int | None, sha256: str | None
    ) -> None:
        """`source` names the file's origin. Bytes of another source are kept only where a checksum
        vouches for the whole. `size` and `sha256` may be unknown (None)."""
        self.path = folder / name
        self.size = size
        self.done = 0
        """Bytes that are there."""
        self.n_kept = 0
        """Those among them that an earlier transfer has left."""
        self.tag: str | None = None
        """The source's own word for equal bytes, kept in the note."""
        self._source = source
        self._sha256 = sha256
        self._part = folder / f"{name}.part"
        self._note = folder / f"{name}.part.json"
        self._hash = hashlib.sha256()
        self._n_unsynced = 0
        self._file: IO[bytes] | None = None

    def has_whole(self) -> bool:
        """Whether the right file is there already. Reads all of it if a checksum is known."""
        if not self.path.is_file():
            return False
        if self.size is not None and self.path.stat().st_size != self.size:
            return False
        if self._sha256 is None:
            return self.size is not None
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self._sha256

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Lock the part: two processes must not write to it. Raises `InUse` and `OSError`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self._part, flags, 0o600), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = os.path.samestat(os.fstat(file.fileno()), os.stat(self._part))
            except OSError:
                is_ours = False
            if not is_ours:  # or it has got its name meanwhile, and a worker may read it
                raise InUse(f"another process is downloading {self.path}") from None
            self._file = file
            try:
                yield
            finally:
                self._file = None

    def resume(self, told: Callable[[int], None] = lambda n_bytes: None) -> None:
        """Go on where an earlier transfer of the same file has ended. Reads what is there, and
        tells how far."""
        file, known = self._opened, self._read_note()
        is_vouched = self._sha256 is not None
        if known.get("sha256") != self._sha256 or (
            not is_vouched and known.get("url") != self._source
        ):
            file.truncate(0)
        tag = known.get("tag") if known.get("url") == self._source else None
        self.tag = tag if isinstance(tag, str) else None
        while piece := file.read(PIECE_BYTES):
            self._hash.update(piece)
            self.done += len(piece)
            told(self.done)
        self.n_kept = self.done
        if self.size is not None and self.done > self.size:
            self.begin_again()

    def begin_again(self) -> None:
        """Drop the bytes that are there."""
        self._opened.seek(0)
        self._opened.truncate(0)
        self._hash, self.done, self.n_kept = hashlib.sha256(), 0, 0

    def write_note(self, tag: str | None = None) -> None:
        """Note what the part belongs to. Raises `OSError`."""
        self.tag = tag
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self._note, flags, 0o600), "w") as file:
            json.dump({"url": self._source, "sha256": self._sha256, "tag": tag}, file)

    def require_space(self, n_bytes: int) -> None:
        """Raises `NoSpace` unless the disk has room for so many more bytes."""
        free = shutil.disk_usage(self.path.parent).free
        if n_bytes > free - SPARE_BYTES:
            raise NoSpace(
                f"{self.path.parent} has {amount(free)} left, and {self.path.name} needs"
                f" {amount(n_bytes)} more"
            )

    def take(self, piece: bytes) -> None:
        """Add the next bytes. Raises `OSError`, and `NoSpace` where the size is unknown."""
        if self.size is None:  # a source that does not end must not fill the disk
            self.require_space(len(piece))
        self._opened.write(piece)
        self._hash.update(piece)
        self._n_unsynced += len(piece)
        if self._n_unsynced >= SYNC_BYTES:
            self._sync()
        self.done += len(piece)

    def settle(self) -> None:
        """Check the whole file and give it its name. Raises `WrongChecksum` and `OSError`."""
        found = self._hash.hexdigest()
        if self._sha256 is not None and found != self._sha256:
            self._part.unlink()
            self._note.unlink(missing_ok=True)
            raise WrongChecksum(
                f"{self.path.name} is not the right file: its SHA-256 is {found}, not"
                f" {self._sha256}"
            )
        self._sync()
        self._part.replace(self.path)
        self._note.unlink(missing_ok=True)

    def _sync(self) -> None:
        self._opened.flush()
        os.fsync(self._opened.fileno())
        self._n_unsynced = 0

    @property
    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise AssertionError("the part is not open")
        return self._file

    def _read_note(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._note.read_text())
            return found if isinstance(found, dict) else {}
        return {}
