"""Signals at a front's process: each counts once, also one that arrives while another is read. And
its threads.

In a process of its own, because handlers are the process's.
"""

import asyncio
import json
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from supervisor import front_process
from tests.service import wait_for

PROGRAM = """
import asyncio, json, os, signal, sys
import uvloop
from supervisor import front_process

async def main():
    calls = []
    front_process.attend_signals(
        lambda number, now: calls.append([number.name, now]), lambda: calls.append("reload")
    )
    # its handler runs while the loop reads the signal
    signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    print("attends", flush=True)
    await ended.wait()
    print(json.dumps(calls))

asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
"""


CONFINED = """
import ctypes, json, resource
from supervisor import front_process

PR_GET_DUMPABLE = 3
front_process.confine()
dumpable = ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
print(json.dumps([dumpable, *resource.getrlimit(resource.RLIMIT_CORE)]))
"""


def test_a_confined_front_keeps_its_memory_from_core_files_and_other_processes() -> None:
    """A process that is not dumpable has no core file where the core pattern is a pipe, and its
    `/proc/PID/mem` is closed to other processes of its user."""
    said = subprocess.run(
        [sys.executable, "-c", CONFINED], capture_output=True, check=True, timeout=60
    ).stdout
    assert json.loads(said) == [0, 0, 0]


def calls_after(*signals: signal.Signals) -> list[object]:
    """The calls of a front that gets these signals, each while its loop waits."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as front:
        assert front.stdin is not None
        assert front.stdout is not None
        assert front.stdout.readline() == b"attends\n"
        process = psutil.Process(front.pid)
        for number in signals:
            # it has one thread: it sleeps in its loop only
            wait_for(lambda: process.status() == psutil.STATUS_SLEEPING, why="its loop waits")
            process.send_signal(number)
        wait_for(lambda: process.status() == psutil.STATUS_SLEEPING, why="its loop waits")
        front.stdin.close()
        calls: list[object] = json.loads(front.stdout.read())
    return calls


def test_a_signal_that_arrives_while_another_is_read_counts_once() -> None:
    assert calls_after(signal.SIGUSR1) == [["SIGTERM", False]]


def test_a_signal_that_comes_again_and_again_drains_once() -> None:
    calls = calls_after(signal.SIGXCPU, signal.SIGXCPU, signal.SIGXCPU)
    assert calls == [["SIGXCPU", False]]


def test_a_signal_of_the_system_does_not_count_as_a_first_one() -> None:
    calls = calls_after(signal.SIGXCPU, signal.SIGTERM, signal.SIGXCPU)
    assert calls == [["SIGXCPU", False]]
    calls = calls_after(signal.SIGXCPU, signal.SIGTERM, signal.SIGXCPU, signal.SIGTERM)
    assert calls == [["SIGXCPU", False], ["SIGTERM", True]]


def test_the_second_signal_ends_at_once_and_a_hang_up_reloads() -> None:
    calls = calls_after(
        signal.SIGHUP, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT
    )
    drained, ended, quitted = ["SIGTERM", False], ["SIGTERM", True], ["SIGQUIT", True]
    assert calls == ["reload", drained, "reload", ended, quitted]


def blocking() -> set[str]:
    """The names of the threads for calls that block."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("blocking_")}


async def test_no_number_of_blocking_calls_starts_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    front_process.start_threads()
    assert len(before := blocking()) == 7
    names = await asyncio.gather(
        *(asyncio.to_thread(lambda: threading.current_thread().name) for _ in range(50))
    )
    assert blocking() == before >= set(names)


async def test_fewer_threads_than_wanted_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    start, n_refused = threading.Thread.start, 0

    def refuse(thread: threading.Thread) -> None:
        nonlocal n_refused
        if len(blocking()) < 2:
            start(thread)
            return
        n_refused += 1
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    front_process.start_threads()
    assert (len(blocking()), n_refused) == (2, 1)
    monkeypatch.undo()
    assert await asyncio.to_thread(lambda: 7) == 7
