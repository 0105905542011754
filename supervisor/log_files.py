"""Reads several log files as one. Knows how a line of `gpufc/logs.py` begins, nothing else of it.

A line without a time, such as llama.cpp's or a traceback's, stays behind the line before it in its
file. Escape codes of a library's own output are escaped: they must not reach the terminal.
"""

import heapq
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from gpufc.printable import printable
from supervisor.log_rotation import older

POLL_S = 0.2
FRONT = "front"

Line = tuple[str, str]
"""A line and the process that wrote it."""

_TIME = re.compile(
    rb'(?:\{"time": ")?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:[+-]\d\d:\d\d)?)[ "]'
)
"""The beginning of a line, plain or JSON. A time without its zone, as older lines have it, is
local time."""


def names(folder: Path) -> list[str]:
    """Names of the processes that have logs, the front first."""
    found = sorted(path.stem for path in folder.glob("*.log"))
    return sorted(found, key=lambda name: name != FRONT)


class Tail:
    """The logs of a folder, or of one process in it. Files may appear, grow and be rotated
    meanwhile."""

    def __init__(
        self, folder: Path, only: str | None = None, *, first_bytes: int | None = None
    ) -> None:
        """With `first_bytes`, the first lines of a log are those in so much of its end."""
        self._folder = folder
        self._only = only
        self._first_bytes = first_bytes
        self._read: dict[Path, int] = {}
        self._rest: dict[Path, bytes] = {}

    def last(self, count: int) -> list[Line]:
        """The last `count` lines of each log, joined in order of time."""
        entries = []
        for path in self._files():
            found = deque(self._new_lines(path), maxlen=count)
            if len(found) < count and self._first_bytes is None:
                found = deque([*_whole_lines(older(path)), *found], maxlen=count)
            entries.append(_timed(path.stem, found))
        return [(name, text) for _, name, text in heapq.merge(*entries, key=lambda entry: entry[0])]

    def follow(self) -> Iterator[list[Line]]:
        """Yield batches of lines that are written from now on. Never ends."""
        while True:
            if lines := self.new():
                yield lines
            time.sleep(POLL_S)

    def new(self) -> list[Line]:
        """The lines that have been written since the last call."""
        entries = [_timed(path.stem, self._new_lines(path)) for path in self._files()]
        batch = heapq.merge(*entries, key=lambda entry: entry[0])
        return [(name, text) for _, name, text in batch]

    def _files(self) -> list[Path]:
        wanted = [self._only] if self._only is not None else names(self._folder)
        return [self._folder / f"{name}.log" for name in wanted]

    def _new_lines(self, path: Path) -> list[bytes]:
        """Whole lines since the last call. A file that became shorter has been rotated: the rest of
        its older lines come first."""
        if path not in self._read and self._first_bytes is not None:
            return self._last_lines(path, self._first_bytes)
        start, rest = self._read.get(path, 0), self._rest.get(path, b"")
        size, data = _read_from(path, start)
        if size < start:
            older_size, data = _read_from(older(path), start)
            # of a burst, the older file has the end only
            rest = rest + data if older_size >= start else b""
            size, data = _read_from(path, 0)
        self._read[path] = size
        *lines, self._rest[path] = (rest + data).split(b"\n")
        return lines

    def _last_lines(self, path: Path, n_bytes: int) -> list[bytes]:
        """The whole lines in a log's end. The first one may be cut, and is left out."""
        start = max(0, _size(path) - n_bytes)
        self._read[path], data = _read_from(path, start)
        *lines, self._rest[path] = data.split(b"\n")
        return lines[1:] if start else lines


def _size(path: Path) -> int:
    """A file's size; 0 without the file, which may be renamed at any time."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_from(path: Path, start: int) -> tuple[int, bytes]:
    """A file's size, and its bytes from `start` to there. Without the file, both are nothing."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(start)
            return size, file.read(max(0, size - start))
    except FileNotFoundError:
        return 0, b""


def _whole_lines(path: Path) -> list[bytes]:
    return _read_from(path, 0)[1].split(b"\n")[:-1]


def _timed(name: str, lines: "deque[bytes] | list[bytes]") -> list[tuple[float, str, str]]:
    entries = []
    at = 0.0
    for line in lines:
        if match := _TIME.match(line):
            at = _seconds(match[1].decode(), at)
        text = line.decode("utf-8", "replace").rstrip("\r").replace("\t", "  ")
        entries.append((at, name, printable(text)))
    return entries


def _seconds(text: str, otherwise: float) -> float:
    """Seconds since the epoch; `otherwise` for an impossible date."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return otherwise
