"""A run that SIGTERM ends leaves no service behind."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.endings import unwound
from tests.structure import ROOT

CHILD = """
import signal, sys
from pathlib import Path
from tests.integration.fake_service import FAKE
from tests.service import service

with service(Path(sys.argv[1]), environ=FAKE):
    print("ready", flush=True)
    signal.pause()
"""


def test_a_run_s_service_ends_with_it(tmp_path: Path) -> None:
    words = [sys.executable, "-c", CHILD, str(tmp_path / "run")]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        started = psutil.Process(run.pid).children(recursive=True)
        assert len(started) >= 2  # a front and its worker
        run.terminate()
        assert run.wait(60) == -signal.SIGINT
        _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []


def test_the_signal_unwinds_within_only() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), unwound(), unwound():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_s_own_handler_stays() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with unwound():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
