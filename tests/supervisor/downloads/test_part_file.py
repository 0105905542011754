"""A file that arrives is on the disk in parts, so that no write takes long at its end."""

import hashlib
import os
from pathlib import Path

import pytest

from supervisor.downloads import part_file
from supervisor.downloads.part_file import PartFile

PIECE = bytes(range(256)) * 16


def test_a_slow_disk_never_has_more_to_write_than_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_pieces, synced = 40, list[int]()
    monkeypatch.setattr(part_file, "SYNC_BYTES", 3 * len(PIECE))

    def fsync(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)

    monkeypatch.setattr(part_file.os, "fsync", fsync)
    digest = hashlib.sha256(PIECE * n_pieces).hexdigest()
    file = PartFile(tmp_path, "m.gguf", "front", n_pieces * len(PIECE), digest)
    with file.opened():
        file.resume()
        for _ in range(n_pieces):
            file.take(PIECE)
        file.settle()
    steps = [after - before for before, after in zip([0, *synced], synced, strict=False)]
    assert max(steps) == 3 * len(PIECE)
    assert synced[-1] == (tmp_path / "m.gguf").stat().st_size == n_pieces * len(PIECE)
