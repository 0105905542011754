"""A spawned process: followed to its end, or not left behind."""

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from gpufc import end_word
from gpufc.end_word import Seen
from supervisor.fleet.process import WORKER_COMMAND, WorkerProcess
from tests.leaks import nothing_leaks
from tests.service import wait_for
from tests.supervisor.reaping import not_reaped


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


@pytest.mark.skipif(not end_word.is_supported(), reason="no glibc on a known processor")
async def test_the_beginning_of_an_end_is_told_before_it_with_the_same_signal(
    tmp_path: Path,
) -> None:
    told: list[tuple[str, int, int]] = []
    began = asyncio.Event()

    def on_ending(code: int, status: int) -> None:
        told.append(("ending", code, status))
        began.set()

    process = WorkerProcess(
        WORKER_COMMAND, tmp_path / "log", lambda code, status: told.append(("exit", code, status))
    )
    process.on_ending = on_ending
    assert process._end_word is not None
    watch = end_word.Watch(process._end_word)
    await asyncio.to_thread(wait_for, lambda: watch.wait(0.0) is Seen.LIVES)
    watch.close()
    process.watch_end()
    with not_reaped(process):
        process.signal(signal.SIGKILL)
        async with asyncio.timeout(60):
            await began.wait()
    killed = (os.CLD_KILLED, signal.SIGKILL)
    assert told == [("ending", *killed), ("exit", *killed)]
