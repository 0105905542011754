"""How both processes log: one line a record, time, level, process, logger, `event key=value`."""

import logging
import sys
from typing import TextIO

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s {role} %(name)s: %(message)s"
_DATE = "%Y-%m-%dT%H:%M:%S"


def configure(level: str, role: str, stream: TextIO | None = None) -> None:
    """Send all records of `level` and above to `stream` (default: stderr), marked with `role`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT.format(role=role), _DATE))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
