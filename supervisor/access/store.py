"""The keys' file: JSON, readable by its owner only, written whole or not at all."""

import codecs
import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from gpufc import files
from gpufc.errors import ConfigError
from supervisor.access.keys import KeyList

MAX_BYTES = 16 * 1024 * 1024

_decoder = msgspec.json.Decoder(KeyList)


def load(path: Path) -> KeyList:
    """The keys of a file. Raises `ConfigError` with a remedy."""
    try:
        with open(path, "rb") as file:
            about = os.fstat(file.fileno())
            _require_private(path, about)
            data = file.read(MAX_BYTES)
    except FileNotFoundError:
        raise ConfigError(
            f"keys file {path} does not exist; `keys add NAME --keys-file {path}` makes it"
        ) from None
    except OSError as err:
        raise ConfigError(f"keys file {path} cannot be read: {err.strerror or err}") from err
    try:
        found = _decoder.decode(data.removeprefix(codecs.BOM_UTF8))  # editors write it
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        raise ConfigError(f"keys file {path} is not valid: {err}") from err
    names = [key.name for key in found.keys]
    if len(set(names)) < len(names):
        raise ConfigError(f"keys file {path} has two keys of one name")
    return found


def _require_private(path: Path, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise ConfigError(f"keys file {path} is no file")
    if about.st_mode & 0o077:
        raise ConfigError(f"keys file {path} is open to other users; `chmod 600 {path}` closes it")


def change(path: Path, edit: Callable[[KeyList], KeyList]) -> None:
    """Replace the file by an edited one; without a file, the list is empty.

    Several processes may do so at once. Raises `ConfigError`, also that of `edit`.
    """
    path = path.resolve()  # a link to the file stays one
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path):
            known = load(path) if path.exists() else KeyList()
            files.replace(path, msgspec.json.format(msgspec.json.encode(edit(known))) + b"\n")
    except OSError as err:
        raise ConfigError(f"keys file {path} cannot be written: {err.strerror or err}") from err


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process changes the file."""
    name = path.with_name(f".{path.name}.lock")
    lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
