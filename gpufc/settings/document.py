"""Reads the configuration's TOML file, and tells one version of it from another."""

import os
import stat
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from gpufc.errors import ConfigError

Stamp = tuple[int, int, int]
"""What differs after a change of a file."""


class Document(NamedTuple):
    """What a file says. `stamp` is that of the version which was read, or of an earlier one."""

    tables: dict[str, Any]
    stamp: Stamp | None


def read(path: Path) -> Document:
    """Read the file. Raises `ConfigError`."""
    try:
        with path.open(encoding="utf-8-sig") as file:  # editors write byte order marks
            # before the text: a write in between then has another stamp than this
            stamp = _stamp(os.fstat(file.fileno()))
            return Document(tomllib.loads(file.read()), stamp)
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"configuration file {path} cannot be read: {err}") from err
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"configuration file {path} is not valid TOML: {err}") from err
    except RecursionError:
        raise ConfigError(f"configuration file {path} is nested too deeply") from None


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of the file as it is now; None without a file that can be read again."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def require_regular(path: Path) -> None:
    """Raises `ConfigError` for a pipe or a device: to open it again may block for ever."""
    try:
        is_regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return  # `read` says what it lacks
    if not is_regular:
        raise ConfigError(f"configuration file {path} is not a regular file: it is read only once")


def _stamp(found: os.stat_result) -> Stamp | None:
    """None for a pipe, such as a shell's `<(...)`: it gives its text once."""
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
