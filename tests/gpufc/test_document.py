"""The stamp of a configuration file belongs to the text that was read."""

import io
import os
from pathlib import Path

import pytest

from gpufc.settings import document, stamp_of
from tests.gpufc.settled import resolve


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gpufc.toml"
    path.write_text("port = 1")
    return path


def test_the_stamp_is_that_of_the_file_until_it_changes(file: Path) -> None:
    known = resolve(file=file).stamp
    assert known is not None
    assert known == stamp_of(file)
    file.write_text("port = 12")
    assert known != stamp_of(file) == resolve(file=file).stamp


@pytest.mark.parametrize("way", ["in place", "by another file"])
def test_a_change_right_after_the_text_was_read_has_another_stamp(
    file: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    class Changing(io.TextIOWrapper):
        def read(self, size: int | None = -1) -> str:
            text = super().read(size)
            monkeypatch.undo()
            fresh = file if way == "in place" else file.with_name("fresh")
            fresh.write_text("port = 12")
            os.replace(fresh, file)
            return text

    def opened(path: Path, *, encoding: str) -> Changing:
        return Changing(io.BufferedReader(io.FileIO(path)), encoding=encoding)

    monkeypatch.setattr(Path, "open", opened)
    found = document.read(file)
    assert found.tables == {"port": 1}
    assert found.stamp != stamp_of(file)


def test_without_a_file_there_is_no_stamp(tmp_path: Path) -> None:
    assert resolve().stamp is None
    assert stamp_of(tmp_path / "none.toml") is None


def test_a_pipe_has_no_stamp_since_it_can_be_read_once_only() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"port = 1")
        os.close(writer)
        path = Path(f"/proc/self/fd/{reader}")
        found = resolve(file=path)
        assert (found.config.server.port, found.stamp, stamp_of(path)) == (1, None, None)
    finally:
        os.close(reader)
