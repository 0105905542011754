"""`logs`: several files as one, in order of time."""

import io
import logging
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner

from gpufc.logs import configure
from supervisor import log_files
from supervisor.cli import cli

FRONT = """\
2026-01-01T10:00:00.000 INFO    front supervisor.app: started
2026-01-01T10:00:02.000 ERROR   front supervisor.app: bad
Traceback (most recent call last):
  boom
"""
WORKER = """\
2026-01-01T10:00:01.000 INFO    worker engine_worker: loading
llama.cpp says
2026-01-01T10:00:03.000 INFO    worker engine_worker: ready
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "front.log").write_text(FRONT)
    (logs / "default-0.log").write_text(WORKER)
    return tmp_path


def logs(folder: Path, *args: str) -> list[str]:
    result = CliRunner().invoke(cli, ["logs", "--runtime-dir", str(folder), *args])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_lines_are_joined_in_order_of_time_and_told_apart(folder: Path) -> None:
    assert [(line.split()[0], line.split()[-1]) for line in logs(folder)] == [
        ("front", "started"),
        ("default-0", "loading"),
        ("default-0", "says"),
        ("front", "bad"),
        ("front", "last):"),
        ("front", "boom"),
        ("default-0", "ready"),
    ]


def test_what_a_library_wrote_into_a_log_sends_no_escape_code(folder: Path) -> None:
    with (folder / "logs" / "default-0.log").open("a") as log:
        log.write("abort: \x1b]0;title\x07\x1b[31m in \u202emodel\x9b1m\n")
    assert logs(folder, "default-0")[-1].endswith(
        r"  abort: \x1b]0;title\x07\x1b[31m in \u202emodel\x9b1m"
    )


def test_one_worker_alone(folder: Path) -> None:
    assert {line.split()[0] for line in logs(folder, "default-0")} == {"default-0"}


def test_the_last_lines_of_each(folder: Path) -> None:
    assert [line.split()[-1] for line in logs(folder, "-n", "1")] == ["boom", "ready"]


def test_a_worker_that_is_not_there_is_a_mistake(folder: Path) -> None:
    result = CliRunner().invoke(cli, ["logs", "--runtime-dir", str(folder), "absent"])
    assert result.exit_code == 2
    assert "there are front, default-0" in result.stderr


def test_following_sees_what_is_added_new_files_and_files_cut_short(folder: Path) -> None:
    tail = log_files.Tail(folder / "logs")
    tail.last(0)
    following = tail.follow()
    with (folder / "logs" / "front.log").open("a") as file:
        file.write("2026-01-01T10:00:04.000 half a li")
        file.flush()
        (folder / "logs" / "default-1.log").write_text("hello\n")
        assert next(following) == [("default-1", "hello")]
        file.write("ne\n")
    assert next(following) == [("front", "2026-01-01T10:00:04.000 half a line")]
    (folder / "logs" / "default-0.log").write_text("anew\n")
    assert list(islice(following, 1)) == [[("default-0", "anew")]]


def test_ctrl_c_is_the_normal_end_of_following(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: log_files.Tail) -> Iterator[list[log_files.Line]]:
        yield [("front", "more")]
        raise KeyboardInterrupt

    monkeypatch.setattr(log_files.Tail, "follow", interrupted)
    assert logs(folder, "-f")[-1].split() == ["front", "more"]


def test_each_line_names_its_process_once(folder: Path) -> None:
    (folder / "logs" / "default-0.log").write_text(
        "2026-01-01T10:00:01.000+01:00 INFO    default-0.3 engine_worker: loading\nraw\n"
    )
    words = [line.split() for line in logs(folder)]
    assert [
        "default-0.3",
        "2026-01-01T10:00:01.000+01:00",
        "INFO",
        "engine_worker:",
        "loading",
    ] in words
    assert ["default-0", "raw"] in words
    assert ["front", "2026-01-01T10:00:00.000", "INFO", "supervisor.app:", "started"] in words


def test_order_is_by_time_over_a_change_of_zone(folder: Path) -> None:
    (folder / "logs" / "front.log").write_text(
        "2026-10-25T02:59:59.000+02:00 INFO    front a: summer\n"
        "2026-10-25T02:00:01.000+01:00 INFO    front a: winter\n"
    )
    (folder / "logs" / "default-0.log").write_text(
        "2026-10-25T01:00:00.000+00:00 INFO    default-0.1 a: between\n"
    )
    assert [line.split()[-1] for line in logs(folder)] == ["summer", "between", "winter"]


def test_a_line_that_was_logged_has_its_zone_and_is_understood(folder: Path) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure("info", "front", stream)
        logging.getLogger("a.b").warning("event key=%s", 1)
    finally:
        root.handlers[:], root.level = before
    line = stream.getvalue()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}[+-]\d\d:\d\d WARNING front a\.b: event key=1\n", line
    )
    assert log_files._TIME.match(line.encode())
