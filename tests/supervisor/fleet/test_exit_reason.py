"""Signals, codes and the kernel's counter → one word."""

import os
import signal
from pathlib import Path

import pytest

from supervisor.fleet.exit_reason import ExitReason, Reason, classify, device_memory
from supervisor.fleet.oom import OomCounter


@pytest.mark.parametrize(
    ("si_code", "status", "oom", "expected"),
    [
        (os.CLD_EXITED, 0, False, ExitReason(code=0, reason=Reason.EXITED, at=1.0)),
        (os.CLD_EXITED, 9, True, ExitReason(code=9, reason=Reason.EXITED, at=1.0)),
        (os.CLD_KILLED, 9, False, ExitReason(signal=9, reason=Reason.KILLED, at=1.0)),
        (os.CLD_KILLED, 9, True, ExitReason(signal=9, reason=Reason.OUT_OF_MEMORY, at=1.0)),
        (os.CLD_KILLED, 15, True, ExitReason(signal=15, reason=Reason.KILLED, at=1.0)),
        (os.CLD_DUMPED, 11, False, ExitReason(signal=11, reason=Reason.CRASHED, at=1.0)),
        (os.CLD_KILLED, 6, False, ExitReason(signal=6, reason=Reason.CRASHED, at=1.0)),
        (os.CLD_KILLED, 64, False, ExitReason(signal=64, reason=Reason.KILLED, at=1.0)),
    ],
)
def test_classify(si_code: int, status: int, oom: bool, expected: ExitReason) -> None:
    assert classify(si_code, status, at=1.0, oom=oom) == expected


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (ExitReason(signal=9, reason=Reason.KILLED, at=0), "killed (SIGKILL)"),
        (ExitReason(signal=99, reason=Reason.KILLED, at=0), "killed (signal 99)"),
        (ExitReason(code=0, reason=Reason.EXITED, at=0), "exited (code 0)"),
        (ExitReason(reason=Reason.HUNG, at=0, detail="no step"), "hung: no step"),
        (ExitReason(signal=signal.SIGABRT, reason=Reason.HUNG, at=0), "hung (SIGABRT)"),
    ],
)
def test_for_people(reason: ExitReason, text: str) -> None:
    assert str(reason) == text


def test_what_was_said_of_a_device_s_memory_is_found_in_the_log() -> None:
    log = b"ready\n  CUDA error: Out of memory\n  in function alloc\n\xff"
    assert device_memory(log) == "CUDA error: Out of memory"
    assert device_memory(b"GGML_ASSERT(n > 0) failed\n") == ""


def test_each_counted_kill_explains_one_death(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 3\n")
    counter = OomCounter((tmp_path / "missing", events))
    assert not counter.claim()
    events.write_text("low 0\noom 4\noom_kill 4\n")
    assert counter.claim()
    assert not counter.claim()
    events.write_text("oom_kill 6\n")
    counter.mark()
    assert not counter.claim()


def test_without_a_counter_nothing_is_out_of_memory(tmp_path: Path) -> None:
    counter = OomCounter((tmp_path / "missing",))
    counter.mark()
    assert not counter.claim()


def test_this_machine_has_a_counter() -> None:
    assert not OomCounter().claim()
