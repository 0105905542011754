"""The log format of both processes: time, level, process, logger, `event key=value`.

A record is one line, and the lines of a traceback follow it, each indented. Characters that are not
printable are escaped, so that no client can forge a line or send escape codes to a terminal.
"""

import logging
import sys
from datetime import datetime
from typing import TextIO

from gpufc.printable import printable

_FORMAT = "%(asctime)s %(levelname)-7s {role} %(name)s: %(message)s"
_INDENT = "  "


def configure(level: str, role: str, stream: TextIO | None = None) -> None:
    """Send all records of `level` and above to `stream` (default: stderr), marked with `role`."""
    handle(level, role, logging.StreamHandler(stream or sys.stderr))


def handle(level: str, role: str, handler: logging.Handler) -> None:
    """Send all records of `level` and above to `handler` only, marked with `role`."""
    handler.setFormatter(LineFormatter(_FORMAT.format(role=role)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class LineFormatter(logging.Formatter):
    """Local time with its offset, so that logs of other machines and seasons can be compared."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return (
            datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        )

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        first, *more = super().format(record).split("\n")
        return "\n".join([first, *(_INDENT + printable(line) for line in more)])
