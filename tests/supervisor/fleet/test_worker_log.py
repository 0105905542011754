"""A worker's log: opened by name, read by descriptor."""

from pathlib import Path

from supervisor.fleet.worker_log import WorkerLog


def test_what_was_written_since_a_mark_is_read_also_when_the_name_has_vanished(
    tmp_path: Path,
) -> None:
    path = tmp_path / "w.log"
    path.write_text("before ")
    log = WorkerLog(path)
    mark = log.open()
    with path.open("a") as writer:
        writer.write("after")
    path.unlink()
    assert log.since(mark, 100) == b"after"
    assert log.since(mark, 3) == b"ter"
    assert log.open() == 0  # the next process gets a file of that name again
    assert path.exists()
    log.close()


def test_a_log_that_was_emptied_since_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    path.write_text("x" * 50)
    log = WorkerLog(path)
    mark = log.open()
    path.write_text("new")
    assert log.since(mark, 100) == b"new"
    log.close()


def test_one_that_was_never_opened_is_empty(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "w.log")
    assert (log.size(), log.since(0, 10)) == (0, b"")
    log.close()
