"""The log format of both processes: time, level, process, logger, `event key=value`."""

import logging
import sys
from datetime import datetime
from typing import TextIO

_FORMAT = "%(asctime)s %(levelname)-7s {role} %(name)s: %(message)s"


def configure(level: str, role: str, stream: TextIO | None = None) -> None:
    """Send all records of `level` and above to `stream` (default: stderr), marked with `role`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter(_FORMAT.format(role=role)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class _Formatter(logging.Formatter):
    """Local time with its offset, so that logs of other machines and seasons can be compared."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return (
            datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        )
