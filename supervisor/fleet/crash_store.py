"""Crash records on disk: `RUNTIME_DIR/crashes/ID.json`, mode 0600, the newest 50.

`CrashStore` reads and writes; any process and thread may use it. `CrashWriter` writes for the
fleet, off the event loop. Imports no aiohttp and no zmq, because commands import this module.
"""

import contextlib
import importlib.metadata
import logging
import os
import platform
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

import gpufc
from gpufc.errors import NotFound
from gpufc.ids import Epoch, WorkerName
from supervisor.fleet.crash_record import CrashRecord
from supervisor.fleet.exit_reason import Reason

logger = logging.getLogger(__name__)

KEEP = 50
FOLDER = "crashes"
_ID = re.compile(r"\d{1,15}-[\w.-]{1,200}-\d{1,15}")
_PACKAGES = ("llama-cpp-python", "msgspec", "pyzmq", "numpy")

_decoder = msgspec.json.Decoder(CrashRecord)
_encoder = msgspec.json.Encoder()


class CrashSummary(Struct, frozen=True, kw_only=True):
    """One line of `crashes list`."""

    id: str
    worker: WorkerName
    epoch: Epoch
    model: str
    at: float
    reason: Reason
    signal: int | None
    code: int | None
    detail: str
    uptime_s: float


_summaries = msgspec.json.Decoder(CrashSummary)
"""Reads the same files and ignores the other fields."""


class CrashStore:
    """The records of one runtime folder. Nothing is kept in memory."""

    def __init__(self, runtime: Path, keep: int = KEEP) -> None:
        self._folder = runtime / FOLDER
        self._keep = keep

    def write(self, record: CrashRecord) -> Path:
        """Store a record, whole or not at all, and drop the oldest. Blocks. Raises `OSError`."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = msgspec.structs.replace(record, versions=versions())
        path = self._folder / f"{record.id}.json"
        new = path.with_suffix(".new")
        data = msgspec.json.format(_encoder.encode({"id": record.id} | _plain(record)))
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            new.rename(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        for old in _newest_first(self._folder)[self._keep :]:
            old.unlink(missing_ok=True)
        return path

    def list(self) -> list[CrashSummary]:
        """Summaries of all records, the newest first. Unreadable files are left out."""
        found = []
        for path in _newest_first(self._folder):
            with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
                found.append(_summaries.decode(path.read_bytes()))
        return found

    def load(self, crash_id: str) -> CrashRecord:
        """One record; `latest` is the newest. Raises `NotFound`."""
        files = _newest_first(self._folder)
        if crash_id == "latest" and files:
            crash_id = files[0].stem
        if not _ID.fullmatch(crash_id):  # it becomes part of a path
            raise NotFound(f"there is no crash record {crash_id!r}")
        try:
            return _decoder.decode((self._folder / f"{crash_id}.json").read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as err:
            raise NotFound(f"there is no crash record {crash_id!r} that can be read") from err


class CrashWriter:
    """Writes records in a thread of its own. Never raises and never blocks the event loop."""

    def __init__(self, store: CrashStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="crash-writer")

    def submit(self, record: CrashRecord) -> None:
        """Have a record written. After `close` it is dropped."""
        with contextlib.suppress(RuntimeError):
            self._thread.submit(self._write, record)

    def close(self) -> None:
        """Wait until all records are written. Blocks for milliseconds; may be called again."""
        self._thread.shutdown(wait=True)

    def _write(self, record: CrashRecord) -> None:
        try:
            path = self._store.write(record)
        except OSError as err:
            logger.warning("crash_record_not_written worker=%s: %s", record.worker, err)
        except Exception:  # the boundary: a record must not hinder a restart
            logger.warning("crash_record_not_written worker=%s", record.worker, exc_info=True)
        else:
            logger.info("crash_recorded worker=%s path=%s", record.worker, path)


@cache
def versions() -> dict[str, str]:
    """Versions of gpufc, Python and the worker's packages, found without importing them."""
    found = {"gpufc": gpufc.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found | {"system": platform.platform()}


def _newest_first(folder: Path) -> list[Path]:
    """The records in a folder: ids begin with milliseconds."""
    try:
        found = [path for path in folder.glob("*.json") if _ID.fullmatch(path.stem)]
    except OSError:
        return []
    return sorted(found, key=lambda path: (int(path.stem.split("-")[0]), path.stem), reverse=True)


def _plain(record: CrashRecord) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(record)
    return plain
