"""The file of what models took: JSON, written whole or not at all.

Blocks, so it is not called in the event loop.
"""

import logging
from pathlib import Path

import msgspec
from msgspec import Struct

from gpufc import files
from supervisor.residency.measured import Entry, Measured

logger = logging.getLogger(__name__)

MAX_BYTES = 4 << 20


class _File(Struct, frozen=True):
    version: int
    entries: tuple[Entry, ...]


VERSION = 1
_decoder = msgspec.json.Decoder(_File)


def load(path: Path) -> Measured:
    """What the file remembers; nothing where it is absent or not valid: it is learnt again."""
    try:
        with path.open("rb") as file:
            found = _decoder.decode(file.read(MAX_BYTES))
    except FileNotFoundError:
        return Measured()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as err:
        logger.warning("measured_memory_unreadable path=%s error=%s", path, err)
        return Measured()
    return Measured(found.entries if found.version == VERSION else ())


def save(path: Path, measured: Measured) -> None:
    """Replace the file. Raises `OSError`."""
    data = msgspec.json.encode(_File(VERSION, measured.entries()))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(path, data)
