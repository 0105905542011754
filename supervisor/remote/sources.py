"""The files of this front's models that hosts may have. Each is checked behind a descriptor, and
only that file is sent: a name may lead to another one by then."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from gpufc.config import ModelConfig
from gpufc.errors import GpufcError
from gpufc.printable import printable
from supervisor.cluster.messages import MAX_MODELS, MAX_PARTS, ModelPart, WantedModel
from supervisor.downloads.checksums import Checksums
from supervisor.fleet.model_files import models_of


class Unsendable(GpufcError):
    """A model that no host accepts. The text is for people."""


class Replaced(OSError):
    """The path leads to another file than the one that was checked, or to a changed one."""


class Source(Struct, frozen=True):
    """A file as it was when it was checked. `path` is its real path; `identity` has its device,
    inode, size and time of change."""

    path: Path
    identity: tuple[int, int, int, int]

    @classmethod
    def behind(cls, fd: int) -> "Source":
        """The file behind a descriptor. Raises `OSError`, also for what is no regular file."""
        found = os.fstat(fd)
        path = Path(os.readlink(way_to(fd)))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a file")
        return cls(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))

    @property
    def n_bytes(self) -> int:
        return self.identity[2]

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of this very file. Raises `Replaced`, and `OSError`."""
        with opened(self.path) as fd:
            if Source.behind(fd) != self:
                raise Replaced("it has changed at the front")
            yield fd


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor for reading. Never waits, also for a FIFO without a writer. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def way_to(fd: int) -> Path:
    """A path that leads to the file behind a descriptor, whatever its names lead to."""
    return Path(f"/proc/self/fd/{fd}")


def described(
    checksums: Checksums, config: ModelConfig, within: Sequence[str]
) -> tuple[tuple[WantedModel, ...], dict[int, Source]]:
    """A worker's models with their samples, and their files by number. Blocks. Raises `OSError` and
    `Unsendable`. `within` holds for the model's own files, as in a worker."""
    models, sources = [], dict[int, Source]()
    found = models_of(config)
    if len(found) > MAX_MODELS:
        raise Unsendable(f"a model has {len(found)} of at most {MAX_MODELS} models and adapters")
    for paths in found:
        is_model = config.model_path is not None and paths[0] == Path(config.model_path)
        parts = []
        for path in paths:
            with opened(path) as fd:
                source = Source.behind(fd)
                if is_model and within and not any(map(source.path.is_relative_to, within)):
                    raise PermissionError(f"{path} does not lie in an allowed folder")
                number = len(sources) + 1
                sources[number] = source
                sample = checksums.sample(source.path, way_to(fd))
            parts.append(ModelPart(number, path.name, source.n_bytes, sample))
        models.append(_sendable(WantedModel(str(paths[0]), tuple(parts))))
    return tuple(models), sources


def _sendable(model: WantedModel) -> WantedModel:
    """A model that a host's decoder accepts: an invalid message would end the connection. Raises
    `Unsendable`."""
    try:
        return msgspec.convert(msgspec.to_builtins(model), WantedModel)
    except msgspec.ValidationError as err:
        raise Unsendable(
            f"{printable(model.path)} cannot be sent to a host: file names are of 1 to 200"
            f" characters and not hidden, and there are {MAX_PARTS} parts at most ({err})"
        ) from err
