"""The log formats of both processes: time, level, process, logger, `event key=value`.

*Plain*: a record is one line, and the lines of a traceback follow it, each indented. Characters
that are not printable are escaped, so that no client can forge a line or send escape codes to a
terminal. *JSON*: a record is one object on one line, with the same fields and those of the event.
Neither shows a key or a token.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any, TextIO

from gpufc.printable import printable

_FORMAT = "%(asctime)s %(levelname)-7s {role} %(name)s: %(message)s"
_INDENT = "  "

SECRET = "(secret)"  # noqa: S105 - stands for one
_SECRETS = re.compile(
    r"(?P<before>\b[Bb]earer\s+|[?&](?:token|key|api_key)=|\bx-api-key:\s*)[^\s&\"']+"
    r"|\bgpufc_[\w-]{40,}"
)
"""Credentials in texts that come from outside, such as a library's message about a URL."""

_DIRECTIVE = re.compile(r"(?:(?P<key>[A-Za-z_]\w*)=)?%(?:%|[-+ #0]*\d*(?:\.\d+)?[a-zA-Z])")


class LogFormat(StrEnum):
    """How records are written to files. A terminal gets plain ones."""

    PLAIN = "plain"
    JSON = "json"


def configure(
    level: str, role: str, stream: TextIO | None = None, form: str = LogFormat.PLAIN
) -> None:
    """Send all records of `level` and above to `stream` (default: stderr), marked with `role`."""
    handle(level, role, logging.StreamHandler(stream or sys.stderr), form)


def handle(level: str, role: str, handler: logging.Handler, form: str = LogFormat.PLAIN) -> None:
    """Send all records of `level` and above to `handler` only, marked with `role`."""
    is_json = form == LogFormat.JSON
    handler.setFormatter(
        JsonFormatter(role) if is_json else LineFormatter(_FORMAT.format(role=role))
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def without_secrets(text: str) -> str:
    """The text with keys and tokens replaced."""
    return _SECRETS.sub(lambda found: f"{found['before'] or ''}{SECRET}", text)


def _time(record: logging.LogRecord) -> str:
    """Local time with its offset, so that logs of other machines and seasons can be compared."""
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


class LineFormatter(logging.Formatter):
    """Plain records."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _time(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = printable(without_secrets(record.message))
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        first, *more = super().format(record).split("\n")
        return "\n".join([first, *(_INDENT + printable(without_secrets(line)) for line in more)])


class JsonFormatter(logging.Formatter):
    """JSON records: `time`, `level`, `process`, `logger`, `event`, `message`, and a field for each
    `key=%s` of the event."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        message = without_secrets(record.getMessage())
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "process": self._role,
            "logger": record.name,
            "event": message.split(maxsplit=1)[0].rstrip(":") if message.strip() else "",
            "message": message,
        }
        for key, value in _fields(record):
            fields.setdefault(key, value)
        if record.exc_info:
            fields["exception"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=True, default=str)


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """The values of `key=%s` in the record's format."""
    values = iter(record.args if isinstance(record.args, tuple) else ())
    for found in _DIRECTIVE.finditer(str(record.msg)):
        if found[0].endswith("%%"):
            continue
        value = next(values, None)
        if found["key"] is not None:
            is_plain = isinstance(value, bool | int | float | None)
            yield found["key"], value if is_plain else without_secrets(str(value))
