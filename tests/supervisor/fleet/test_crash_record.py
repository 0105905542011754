"""The flight recorder: the content of a record, its file, and the data that it never holds."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gpufc.config import ModelConfig
from gpufc.errors import NotFound
from gpufc.ids import Epoch, RequestNo, WorkerName
from gpufc.protocol import EnginePhase, EngineStatus, Heartbeat
from supervisor.fleet.crash_record import (
    MAX_LOG_LINES,
    MEMORY_SAMPLES,
    BlackBox,
    CrashRecord,
    log_lines,
    stacks,
    without_secrets,
)
from supervisor.fleet.crash_store import CrashStore, CrashWriter
from supervisor.fleet.exit_reason import ExitReason, Reason
from tests.fakes.child_worker import ready

DUMP = """\
2026-01-01 something before
Fatal Python error: Aborted

Thread 0x00007f11 (most recent call first):
  File "engine_worker/channel.py", line 80 in run

Current thread 0x00007f22 (most recent call first):
  File "engine_worker/backend/fake/faults.py", line 120 in _hang
  <no Python frame>

Current thread's C stack trace (most recent call first):
  Binary file "libpython.so", at _Py_DumpStack+0x48
  <truncated rest of calls>

Extension modules: numpy, zmq (total: 2)
what came after
"""


def box() -> BlackBox:
    box = BlackBox(100.0, 1_700_000_000.0, ModelConfig(model_path="/m.gguf"))
    box.pid = 77
    return box


def record(at: float = 1_700_000_010.5, epoch: int = 3, **changes: object) -> CrashRecord:
    end = ExitReason(signal=11, reason=Reason.CRASHED, at=at, requests=(RequestNo(5),))
    made = box().record(
        end, 110.5, b"a line\n", worker=WorkerName("default-0"), epoch=Epoch(epoch), model="m"
    )
    return msgspec.structs.replace(made, **changes)


def test_a_record_says_all_that_was_known() -> None:
    seen = box()
    seen.ready = ready(Epoch(3))
    engine = EngineStatus(EnginePhase.DECODE, 17, 9_000.0, 4, 4, 1, 99)
    seen.beat(Heartbeat(Epoch(3), engine, clock=9_000.3), 110.3)
    seen.last_step = 16
    seen.sample_memory(101.0, 10)
    seen.sample_memory(101.5, 11)
    seen.sample_memory(102.0, 12)
    end = ExitReason(signal=6, reason=Reason.HUNG, at=1_700_000_010.5, detail="stuck")
    made = seen.record(
        end, 110.5, DUMP.encode(), worker=WorkerName("default-0"), epoch=Epoch(3), model="m"
    )
    assert made.id == "1700000010500-default-0-3"
    assert (made.pid, made.reason, made.signal, made.code) == (77, Reason.HUNG, 6, None)
    assert (made.uptime_s, made.was_ready, made.fingerprint) == (10.5, True, "fake")
    assert made.engine is not None
    assert (made.engine.phase, made.engine.step, made.engine.age_s) == ("decode", 17, 0.5)
    assert made.engine.last_step_sent == 16
    assert [(sample.uptime_s, sample.rss_bytes) for sample in made.memory] == [(1.0, 10), (2.0, 12)]
    assert made.python_stack[0] == "Fatal Python error: Aborted"
    assert '  File "engine_worker/backend/fake/faults.py", line 120 in _hang' in made.python_stack
    assert len(made.c_stack) == 3
    assert made.log[-1] == "what came after"
    assert made.config["model_path"] == "/m.gguf"


def test_of_a_process_that_said_nothing() -> None:
    made = record()
    assert (made.engine, made.was_ready, made.python_stack, made.memory) == (None, False, (), ())
    assert made.requests == (5,)


def test_memory_is_bounded() -> None:
    seen = box()
    for second in range(10_000):
        seen.sample_memory(100.0 + second, second)
    made = seen.record(
        ExitReason(code=1, reason=Reason.EXITED, at=0.0),
        0.0,
        b"",
        worker=WorkerName("w"),
        epoch=Epoch(1),
        model="m",
    )
    assert len(made.memory) == MEMORY_SAMPLES
    assert made.memory[-1].rss_bytes == 9999


def test_the_log_is_bounded_and_decoded_come_what_may() -> None:
    assert log_lines(b"\xff\xfe\n" * 1000) == ("\ufffd\ufffd",) * MAX_LOG_LINES
    assert sum(map(len, log_lines(b"x" * 1_000_000))) == 64 * 1024


def test_only_the_last_dump_counts_and_no_dump_is_no_dump() -> None:
    python, _ = stacks([*DUMP.splitlines(), "Fatal Python error: Segmentation fault", "", "other"])
    assert python == ("Fatal Python error: Segmentation fault",)
    assert stacks(["Traceback (most recent call last):", '  File "x"']) == ((), ())


def test_secrets_are_left_out_by_name() -> None:
    config = {"api_key": "x", "hf_token": "x", "password": "x", "batch_tokens": 1, "n_ctx": 2}
    assert without_secrets(config) == {"batch_tokens": 1, "n_ctx": 2}


def test_written_and_read_again(tmp_path: Path) -> None:
    store = CrashStore(tmp_path)
    assert store.list() == []
    path = store.write(record())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    (summary,) = store.list()
    assert (summary.id, summary.reason, summary.signal) == (record().id, Reason.CRASHED, 11)
    loaded = store.load(summary.id)
    assert {"gpufc", "python", "llama-cpp-python"} <= set(loaded.versions)
    assert msgspec.structs.replace(loaded, versions={}) == record()
    assert store.load("latest") == loaded
    assert json.loads(path.read_text())["id"] == summary.id


def test_the_newest_are_kept(tmp_path: Path) -> None:
    store = CrashStore(tmp_path, keep=3)
    for epoch in range(1, 8):
        store.write(record(at=1000.0 + epoch, epoch=epoch))
    assert [summary.epoch for summary in store.list()] == [7, 6, 5]
    assert len(list((tmp_path / "crashes").iterdir())) == 3


def test_what_is_broken_is_passed_over(tmp_path: Path) -> None:
    store = CrashStore(tmp_path)
    store.write(record())
    (tmp_path / "crashes" / "1-w-1.json").write_text("{")
    (tmp_path / "crashes" / "notes.json").write_text("{}")
    assert len(store.list()) == 1
    for wrong in ("1-w-1", "2-w-2", "../front", "", "/etc/passwd", "1-../../x-1"):
        with pytest.raises(NotFound):
            store.load(wrong)


def test_a_folder_that_cannot_be_written_is_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "crashes").write_text("in the way")
    writer = CrashWriter(CrashStore(tmp_path))
    writer.submit(record())
    writer.close()
    writer.submit(record())
    writer.close()
    assert caplog.text.count("crash_record_not_written") == 1


def test_a_full_disk_is_one_line_in_the_log_and_leaves_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    writer = CrashWriter(CrashStore(tmp_path))
    writer.submit(record())
    writer.close()
    assert list((tmp_path / "crashes").iterdir()) == []
    (said,) = caplog.records
    assert "No space left on device" in said.getMessage()
    assert said.exc_info is None


def test_the_store_is_read_without_the_service() -> None:
    code = (
        "import sys, supervisor.fleet.crash_store; "
        "print(sorted({'aiohttp', 'zmq', 'llama_cpp', 'numpy', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.stdout.strip() == "[]"
