"""A run that SIGTERM ends leaves no service behind."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

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


WITHIN_ONLY = """
import signal
from tests.endings import unwound

before = signal.getsignal(signal.SIGTERM)
try:
    with unwound(), unwound():
        signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt:
    print("unwound", signal.getsignal(signal.SIGTERM) is before)
"""

OWN_HANDLER = """
import signal
from tests.endings import unwound

signal.signal(signal.SIGTERM, lambda number, _: print("own", number))
with unwound():
    signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [(WITHIN_ONLY, "unwound True"), (OWN_HANDLER, f"own {signal.SIGTERM.value}")],
    ids=["the signal unwinds within only", "a run's own handler stays"],
)
def test_a_process_of_its_own(program: str, said: str) -> None:
    """This process would be ended if it were its own signal that nothing handles."""
    words = [sys.executable, "-c", program]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout.strip()) == (0, said), run.stderr
