"""A model's files between their check and their use: a name may lead to another file by then."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from msgspec import Struct

from gpufc.errors import ModelLoadError


class ModelFile(Struct, frozen=True):
    """A file as it was at one look. Equal at two looks: the same file, unchanged, and the same
    way to it. `real_path` has no links."""

    path: str
    real_path: str
    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def behind(cls, path: Path | str, fd: int) -> Self:
        """The file behind a descriptor that `path` has led to. Raises `OSError`."""
        found, real_path = os.fstat(fd), os.readlink(f"/proc/self/fd/{fd}")
        identity = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        return cls(str(path), real_path, *identity)


def open_model_file(path: Path | str) -> int:
    """A descriptor of a file, for reading. Never waits, also for a FIFO without a writer.

    Raises `ModelLoadError`.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ModelLoadError(f"model file {path} does not exist") from None
    except OSError as err:
        raise ModelLoadError(f"model file {path} cannot be read: {err.strerror}") from err


def require_within(files: Sequence[ModelFile], places: Sequence[str]) -> None:
    """Raises `ModelLoadError` for a file that is none of `places` and in none of them. These are
    real paths; without any, all files pass."""
    for file in files:
        if places and not any(Path(file.real_path).is_relative_to(place) for place in places):
            raise ModelLoadError(f"model file {file.path} does not lie in an allowed folder")


def require_unchanged(before: ModelFile, now: ModelFile) -> None:
    """Raises `ModelLoadError` for a path that leads to another file, or to a changed one."""
    if now != before:
        raise ModelLoadError(f"model file {before.path} has changed while it was loaded")


@contextmanager
def opened(files: Sequence[ModelFile]) -> Iterator[list[str]]:
    """Paths that lead to these very files until the end, whatever happens to their names.

    Raises `ModelLoadError` for a name that leads to another file, or to a changed one.
    """
    with ExitStack() as stack:
        paths = []
        for file in files:
            fd = open_model_file(file.path)
            stack.callback(os.close, fd)
            require_unchanged(file, ModelFile.behind(file.path, fd))
            paths.append(f"/proc/self/fd/{fd}")
        yield paths
