"""Text on its way out of the process, to a file, a terminal or a pipe. The writer never waits.

A terminal that is held (Ctrl-S), a full pipe or a slow disk must not stop the event loop.
"""

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable

CAPACITY = 2000
"""Texts that wait while the output is held up. Later ones are dropped and counted."""

Write = Callable[[str], None]


class Outlet:
    """Writes texts in order, in a thread of its own. `put` never blocks.

    A text that finds the queue full is dropped. Once the output moves again, it gets a line with
    the number of dropped texts. A `Write` that raises `OSError` loses its own text only.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._texts: queue.Queue[tuple[Write, str] | None] = queue.Queue(capacity)
        self._n_dropped = 0
        self._closed = False
        # a daemon: an output that is held up must not keep the process alive
        self._thread = threading.Thread(target=self._run, name="outlet", daemon=True)
        self._thread.start()

    def put(self, write: Write, text: str) -> None:
        """Queue a text for `write`, or drop it."""
        if self._closed:
            return
        try:
            self._texts.put_nowait((write, text))
        except queue.Full:
            self._n_dropped += 1

    def close(self, timeout_s: float) -> None:
        """Write the queued texts, for at most this time. Later texts are dropped."""
        deadline = time.monotonic() + timeout_s
        self._closed = True
        try:
            self._texts.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (item := self._texts.get()) is not None:
            write, text = item
            self._out(write, text)
            n_dropped, self._n_dropped = self._n_dropped, 0
            if n_dropped:
                self._out(write, f"{n_dropped} lines were dropped: the output was held up\n")

    def _out(self, write: Write, text: str) -> None:
        try:
            write(text)
        except OSError:
            self._n_dropped += 1


class OutletHandler(logging.Handler):
    """Formats records and puts them into an outlet."""

    def __init__(self, outlet: Outlet, write: Write) -> None:
        super().__init__()
        self._outlet = outlet
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as err:  # the boundary: a faulty log call must not end its caller
            text = f"unprintable log record of {record.name}: {err!r}"
        self._outlet.put(self._write, text + "\n")


class Stream:
    """One standard stream, written through an outlet. Takes the place of a text stream."""

    def __init__(self, fd: int, encoding: str, outlet: Outlet) -> None:
        self._fd = fd
        self._encoding = encoding
        self._outlet = outlet

    def write(self, text: str) -> None:
        """Queue a text. Never blocks."""
        self._outlet.put(self.write_now, text)

    def write_now(self, text: str) -> None:
        """Write to the descriptor, past Python's stream: a lock on that would block the exit."""
        left = text.encode(self._encoding, "replace")
        while left:
            left = left[os.write(self._fd, left) :]

    def flush(self) -> None:
        """Nothing is buffered here."""

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return os.isatty(self._fd)


class Terminal:
    """Standard output and standard error of a front, in one order."""

    def __init__(self) -> None:
        self.outlet = Outlet()
        self.out = Stream(1, _encoding(sys.stdout), self.outlet)
        self.err = Stream(2, _encoding(sys.stderr), self.outlet)

    def say(self, line: str, *, err: bool = False) -> None:
        """Write one line. Never blocks."""
        (self.err if err else self.out).write(line + "\n")


def _encoding(stream: object) -> str:
    return getattr(stream, "encoding", None) or "utf-8"
