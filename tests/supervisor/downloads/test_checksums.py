"""A file is read once for its checksum, and again when it is another one."""

import hashlib
import os
from pathlib import Path

import pytest

from supervisor.downloads.checksums import Changed, Checksums

CONTENT = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(CONTENT)
    return path


def test_a_file_is_read_once(file: Path, tmp_path: Path) -> None:
    told: list[int] = []
    sums = Checksums(tmp_path / "kept" / "sums.json")
    assert sums.known(file) is None
    assert sums.sha256(file, told.append) == DIGEST
    assert told[-1] == len(CONTENT)
    told.clear()
    assert sums.sha256(file, told.append) == DIGEST
    assert Checksums(tmp_path / "kept" / "sums.json").sha256(file, told.append) == DIGEST
    assert told == []


def test_another_file_under_the_path_is_read(file: Path) -> None:
    sums = Checksums(None)
    sums.sha256(file)
    sample = sums.sample(file)
    file.write_bytes(CONTENT[::-1])
    os.utime(file, ns=(1, 1))  # clocks of file systems tick slowly
    assert sums.known(file) is None
    assert sums.sha256(file) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert sums.sample(file) != sample


def test_a_file_that_is_written_meanwhile_has_no_checksum(file: Path) -> None:
    sums = Checksums(None)

    def told(n_bytes: int) -> None:
        os.utime(file, ns=(1, n_bytes))

    with pytest.raises(Changed):
        sums.sha256(file, told)
    assert sums.known(file) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"/m": 1}'])
def test_a_damaged_record_is_begun_anew(file: Path, tmp_path: Path, content: bytes) -> None:
    record = tmp_path / "sums.json"
    record.write_bytes(content)
    sums = Checksums(record)
    assert sums.sha256(file) == DIGEST
    assert Checksums(record).known(file) == DIGEST


def test_a_record_that_cannot_be_written_is_no_error(file: Path, tmp_path: Path) -> None:
    sums = Checksums(file / "sums.json")
    assert sums.sha256(file) == DIGEST
