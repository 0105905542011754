"""Whether a model's files on disk are others than before."""

import re
from pathlib import Path

from gpufc.adapters import adapter_files
from gpufc.config import ModelConfig

Stamp = tuple[int, int, int] | None
"""Inode, size and time of change of one file; None if it cannot be seen."""

_SHARD = re.compile(r"(.*-)\d{5}(-of-\d{5}\.gguf)")


def stamps(config: ModelConfig) -> tuple[Stamp, ...]:
    """The stamps of a model's files. Blocks while it looks."""
    return tuple(map(_stamp, files_of(config)))


def files_of(config: ModelConfig) -> list[Path]:
    """A model's files, with its draft model and adapters; the first part of a split model twice.
    Blocks while it looks."""
    models = (config.model_path, config.draft_model_path)
    paths = [path for path in models if path is not None]
    paths += [file.path for file in adapter_files(config.adapters)]
    return [file for path in paths for file in _shards(Path(path))]


def _shards(path: Path) -> list[Path]:
    """All present files of a model that is split into several; `path` alone otherwise."""
    name = _SHARD.fullmatch(path.name)
    if name is None:
        return [path]
    pattern = "?????".join(re.sub(r"([*?[])", r"[\1]", part) for part in name.groups())
    return [path, *sorted(path.parent.glob(pattern))]


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
