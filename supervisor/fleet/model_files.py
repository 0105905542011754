"""Whether a model's files on disk are others than before."""

import re
from pathlib import Path

from gpufc.adapters import adapter_files
from gpufc.config import ModelConfig

Stamp = tuple[int, int, int] | None
"""Inode, size and time of change of one file; None if it cannot be seen."""

_SHARD = re.compile(r"(.*-)\d{5}(-of-(\d{5})\.gguf)")


def stamps(config: ModelConfig) -> tuple[Stamp, ...]:
    """The stamps of a model's files. Blocks while it looks."""
    return tuple(map(_stamp, files_of(config)))


def files_of(config: ModelConfig) -> list[Path]:
    """A model's files, with its draft model and adapters; the first part of a split model twice.
    Blocks while it looks."""
    return [file for path in _paths(config) for file in _shards(path)]


def models_of(config: ModelConfig) -> list[list[Path]]:
    """The files of a model, its draft model, each adapter and a template, the configured one first
    in each list. Those that are not all there are left out. Blocks while it looks."""
    template = config.chat_template  # or the name of one that the model brings
    paths = [*_paths(config), *([Path(template)] if template and "/" in template else [])]
    found = {path: list(dict.fromkeys(_shards(path))) for path in paths if path.is_file()}
    return [files for path, files in found.items() if len(files) == _n_shards(path)]


def _paths(config: ModelConfig) -> list[Path]:
    adapters = [file.path for file in adapter_files(config.adapters)]
    return [Path(path) for path in (*config.weight_files, *adapters)]


def _n_shards(path: Path) -> int:
    name = _SHARD.fullmatch(path.name)
    return 1 if name is None else int(name[3])


def _shards(path: Path) -> list[Path]:
    """All present files of a model that is split into several; `path` alone otherwise."""
    name = _SHARD.fullmatch(path.name)
    if name is None:
        return [path]
    pattern = "?????".join(re.sub(r"([*?[])", r"[\1]", part) for part in name.groups()[:2])
    return [path, *sorted(path.parent.glob(pattern))]


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
