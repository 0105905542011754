"""A process that was spawned and cannot be followed is not left behind."""

import errno
import os
import sys
from pathlib import Path

import psutil
import pytest

from supervisor.fleet.process import WorkerProcess
from tests.leaks import nothing_leaks


async def test_without_a_descriptor_to_follow_it_a_process_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned: list[psutil.Process] = []

    def refused(pid: int, flags: int = 0) -> int:
        spawned.append(psutil.Process(pid))
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refused)
    sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
    with nothing_leaks(), pytest.raises(OSError, match="Too many open files"):
        WorkerProcess(sleeper, tmp_path / "log", lambda code, status: None)
    assert not spawned[0].is_running()
