"""Log files are bounded while they are written to, and written to again when they vanish."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from supervisor.front_process import keep_rotated
from supervisor.log_files import Tail
from supervisor.log_rotation import LogFile, older, rotate, rotate_folder
from tests.supervisor.dispatch.fakes import until


def test_a_log_over_the_limit_moves_to_its_older_file(tmp_path: Path) -> None:
    log = tmp_path / "front.log"
    writer = LogFile(log)
    writer.write("one\n")
    rotate(log, limit_bytes=4)
    assert not older(log).exists()
    writer.write("two\n")
    rotate(log, limit_bytes=4)
    writer.write("three\n")
    assert older(log).read_text() == "one\ntwo\n"
    assert log.read_text() == "three\n"
    assert older(log).stat().st_mode & 0o777 == log.stat().st_mode & 0o777 == 0o600
    rotate(log, limit_bytes=4)
    assert older(log).read_text() == "three\n"
    assert log.read_text() == ""


def test_of_a_burst_the_last_lines_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "front.log"
    log.write_text("".join(f"{number}\n" for number in range(10_000, 10_100)))
    rotate(log, limit_bytes=20)
    assert older(log).read_text() == "".join(f"{number}\n" for number in range(10_094, 10_100))


def test_a_link_in_place_of_the_older_file_is_not_followed(tmp_path: Path) -> None:
    log, other = tmp_path / "front.log", tmp_path / "other"
    other.write_text("precious")
    older(log).symlink_to(other)
    log.write_text("long enough\n")
    rotate(log, limit_bytes=4)
    assert other.read_text() == "precious"
    assert log.read_text() == ""


def test_every_log_of_a_folder_is_rotated_under_its_writers(tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("default-0.log", "spare.log", "start.out")]
    writers = [os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for log in logs]
    for writer in writers:
        os.write(writer, b"line\n" * 201)
    rotate_folder(tmp_path, limit_bytes=1000)
    for writer in writers:
        os.write(writer, b"next\n")
        os.close(writer)
    assert [older(log).read_bytes() for log in logs] == [b"line\n" * 201] * 3
    assert [log.read_bytes() for log in logs] == [b"next\n"] * 3


def test_the_fronts_log_loses_no_line_while_it_is_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "front.log"
    writers = [LogFile(log), LogFile(log)]  # during an upgrade there are two fronts
    rename = os.replace

    def between(source: Path, target: Path) -> None:
        for writer in writers:
            writer.write("before\n")
        rename(source, target)
        for writer in writers:
            writer.write("after\n")

    monkeypatch.setattr(os, "replace", between)
    writers[0].write("long enough\n")
    rotate(log, limit_bytes=8)
    assert older(log).read_text() == "long enough\nbefore\nbefore\n"
    assert log.read_text() == "after\nafter\n"


def test_a_vanished_log_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    writer = LogFile(folder / "front.log")
    writer.write("one\n")
    (folder / "front.log").unlink()
    writer.write("two\n")
    assert (folder / "front.log").read_text() == "two\n"
    shutil.rmtree(folder)
    writer.write("three\n")  # nowhere to write it
    folder.mkdir()
    writer.write("four\n")
    assert (folder / "front.log").read_text() == "four\n"


def test_a_reader_misses_no_line_of_a_rotated_log(tmp_path: Path) -> None:
    log = tmp_path / "front.log"
    writer, tail = LogFile(log), Tail(tmp_path)
    following = tail.follow()
    writer.write("1\n2")
    assert tail.last(10) == [("front", "1")]
    writer.write("2\n3\n")
    rotate(log, limit_bytes=4)
    writer.write("4\n")
    assert next(following) == [("front", "22"), ("front", "3"), ("front", "4")]
    assert Tail(tmp_path).last(3) == [("front", "22"), ("front", "3"), ("front", "4")]


def test_escape_codes_of_a_library_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "default-0.log").write_bytes(b"a\x1b]0;title\x07\tb\n")
    assert Tail(tmp_path).last(1) == [("default-0", r"a\x1b]0;title\x07  b")]


async def test_a_folder_is_kept_rotated_by_the_limit_of_the_moment(tmp_path: Path) -> None:
    log = tmp_path / "host.log"
    log.write_bytes(b"a line\n" * 10)
    limit = 1000
    task = asyncio.create_task(keep_rotated(tmp_path, lambda: limit, 0.0))
    await until(log.exists)
    assert log.stat().st_size == 70
    limit = 50
    await until(lambda: older(log).exists() and log.stat().st_size == 0)
    assert older(log).read_bytes() == b"a line\n" * 10
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
