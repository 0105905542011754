"""A record is one line, whatever is in it."""

import io
import json
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


def test_json_has_a_field_for_each_key_of_the_event_and_is_one_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter("front"))
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.info(
        "request_answered request=%s route=%s %s seconds=%.3f full=100%%", "r1", "GET", FORGED, 0.5
    )
    try:
        raise ValueError(FORGED)
    except ValueError:
        logger.exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["event"] == "request_answered"
    assert (first["request"], first["route"], first["seconds"]) == ("r1", "GET", 0.5)
    assert (first["level"], first["process"], first["logger"]) == ("info", "front", "x")
    assert "full=100%" in first["message"]
    assert second["exception"].startswith("Traceback")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.def", "Authorization: Bearer (secret)"),
        ("GET /?token=abc&x=1", "GET /?token=(secret)&x=1"),
        ("key gpufc_" + "a" * 43, "key (secret)"),
        ("gpufc_tokens_recomputed_total", "gpufc_tokens_recomputed_total"),
    ],
)
def test_no_format_shows_a_secret(stream: io.StringIO, text: str, shown: str) -> None:
    logging.getLogger("x").info("said text=%s", text)
    assert stream.getvalue().rstrip("\n").endswith(f"said text={shown}")
    record = logging.LogRecord("x", logging.INFO, "", 0, "said text=%s", (text,), None)
    found = json.loads(logs.JsonFormatter("front").format(record))
    assert found["text"] == shown
    assert found["message"].endswith(shown)
