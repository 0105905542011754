"""A folder whose GGUF files are served by their names: what is in it, and what has changed.

`Folder` decides; `scan` looks.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

SUFFIX = ".gguf"
MAX_DEPTH = 3
MAX_FILES = 2_000
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
_NO_MODEL = re.compile(r"(^|[-_.])mmproj([-_.]|$)", re.IGNORECASE)
"""A projector of images belongs to a model and is none."""

Stamp = tuple[int, int, int]
"""Inode, size and time of change of a model's first file."""


class Found(Struct, frozen=True):
    """A model's first file."""

    path: Path
    stamp: Stamp


class Changes(Struct, frozen=True):
    """Served names, by what has happened to their files."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


class Folder:
    """What is known of the folder. Pure.

    A new or changed file counts once two looks in a row find it the same: it may be half copied.
    """

    def __init__(self) -> None:
        self.files: dict[str, Found] = {}
        """The files that count, by served name."""
        self._seen: Mapping[str, Found] = {}

    def look(self, found: Mapping[str, Found], *, is_first: bool = False) -> Changes:
        """Compare with the looks before. At the first look all files count."""
        still = found if is_first else {n: f for n, f in found.items() if self._seen.get(n) == f}
        new = tuple(name for name in still if name not in self.files)
        changed = tuple(n for n, one in still.items() if n in self.files and self.files[n] != one)
        gone = tuple(name for name in self.files if name not in found)
        for name in gone:
            del self.files[name]
        for name in (*new, *changed):
            self.files[name] = still[name]
        self._seen = found
        return Changes(new, changed, gone)


def scan(folder: Path) -> dict[str, Found]:
    """The models in a folder and its subfolders, by name. Blocks. Raises `OSError` for a folder
    that cannot be read."""
    os.listdir(folder)
    found: dict[str, Found] = {}
    for path in _files(folder):
        name = name_of(path.relative_to(folder))
        if name is None or name in found:
            continue
        try:
            seen = path.stat()
        except OSError:
            continue  # it has just vanished
        if not stat.S_ISREG(seen.st_mode):
            continue  # a FIFO, a socket or a device
        found[name] = Found(path, (seen.st_ino, seen.st_size, seen.st_mtime_ns))
        if len(found) >= MAX_FILES:
            break
    return found


def name_of(path: Path) -> str | None:
    """The served name of a file, relative to the folder; None for one that is no model, and for one
    whose path is no UTF-8: no request could name it."""
    if path.suffix.lower() != SUFFIX or path.name.startswith(".") or not _is_utf8(path):
        return None
    stem = path.name[: -len(SUFFIX)]
    if _NO_MODEL.search(stem):
        return None
    shard = _SHARD.fullmatch(stem)
    if shard is not None:
        if int(shard[2]) != 1:
            return None
        stem = shard[1]
    return (path.parent / stem).as_posix()


def _is_utf8(path: Path) -> bool:
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    for at, folders, files in os.walk(folder, followlinks=True):
        depth = len(Path(at).relative_to(folder).parts)
        hidden = [name for name in folders if name.startswith(".")]
        for name in folders[:] if depth >= MAX_DEPTH else hidden:
            folders.remove(name)
        folders.sort()
        yield from (Path(at, name) for name in sorted(files))
