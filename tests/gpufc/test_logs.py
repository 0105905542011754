"""A record is one line, whatever is in it."""

import io
import logging

import pytest

from gpufc import logs
from gpufc.printable import printable

FORGED = "/a\n2026-11-29T00:00:00.000+00:00 CRITICAL front forged\x1b[31m\r\x9b1m\u202e\u2028"


@pytest.fixture
def stream() -> io.StringIO:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("debug", "front", stream)
    yield stream  # type: ignore[misc]
    root.handlers[:] = handlers
    root.setLevel(level)


def test_control_characters_make_no_line_and_no_escape_code(stream: io.StringIO) -> None:
    logging.getLogger("x").warning("request_answered route=%s", FORGED)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert line.endswith(
        r"x: request_answered route=/a\n2026-11-29T00:00:00.000+00:00 CRITICAL front forged"
        r"\x1b[31m\r\x9b1m\u202e\u2028"
    )


def test_a_traceback_cannot_forge_a_line(stream: io.StringIO) -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("x").exception("failed")
    first, *more = stream.getvalue().split("\n")[:-1]
    assert first.endswith("x: failed")
    assert len(more) > 3
    assert all(line.startswith("  ") and line.isprintable() for line in more)


def test_letters_of_every_script_stay() -> None:
    assert printable("größer 模型 🙂") == "größer 模型 🙂"


def test_bytes_that_are_no_utf8_can_be_written() -> None:
    assert printable("bad\udcff") == r"bad\udcff"
