"""CURVE key pairs in hex, and private JSON files that hold them.

Hex, because ZeroMQ's own text form of a key (Z85) has characters that shells and files quote.
"""

import os
import stat
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq
from msgspec import Struct
from zmq.utils import z85

from gpufc import files
from gpufc.errors import ConfigError

KEY_BYTES = 32
MAX_FILE_BYTES = 4 * 1024 * 1024

T = TypeVar("T")


class KeyPair(Struct, frozen=True):
    """A CURVE key pair in hex. The secret half is in no `repr`."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


def new_pair() -> KeyPair:
    """A random key pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(_hex(public), _hex(secret))


def pair_of(secret: str) -> KeyPair:
    """The pair of a secret key in hex. Raises `ValueError`."""
    raw = bytes.fromhex(secret)
    if len(raw) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    return KeyPair(_hex(zmq.curve_public(z85.encode(raw))), secret)


def _hex(z85_text: bytes) -> str:
    return z85.decode(z85_text).hex()


def load(path: Path, kind: type[T], name: str) -> T | None:
    """A private file's content; None without a file. Raises `ConfigError` with a remedy: others can
    read it, or it is not valid. `name` is its name in that error."""
    try:
        with open(path, "rb") as file:
            about = os.fstat(file.fileno())
            data = file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise ConfigError(f"{name} {path} cannot be read: {err.strerror or err}") from err
    if not stat.S_ISREG(about.st_mode):
        raise ConfigError(f"{name} {path} is no file")
    if about.st_mode & 0o077:
        raise ConfigError(f"{name} {path} is open to other users; `chmod 600 {path}` closes it")
    return decode(data, kind, f"{name} {path}")


def decode(data: bytes, kind: type[T], name: str) -> T:
    """JSON as a value. Raises `ConfigError`, which does not show the data."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        raise ConfigError(f"{name} is not valid: {err}") from err


def save(path: Path, value: Struct) -> None:
    """Replace a private file (mode 0600). Raises `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(path, msgspec.json.format(msgspec.json.encode(value)) + b"\n")
