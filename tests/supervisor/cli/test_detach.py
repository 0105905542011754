"""`start --detach` with real processes and the fake engine: ready or a reason, never silence."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervisor.cli import files


def run(folder: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GPUFC_")}
    given = {"GPUFC_RUNTIME_DIR": str(folder), "GPUFC_BACKEND": "fake"}
    return subprocess.run(
        [sys.executable, "-m", "supervisor.cli", *command],
        capture_output=True, text=True, timeout=60, env=kept | given | environ, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run"
    run(tmp_path / "run", "stop", "--now")


def test_a_whole_life(folder: Path) -> None:
    started = run(folder, "start", "--detach", "--port", "0")
    assert started.returncode == 0, started.stderr
    assert "http://127.0.0.1:" in started.stdout
    assert str(folder / "logs" / "front.log") in started.stdout
    assert f"logs -f --runtime-dir {folder}`" in started.stdout
    assert stat.S_IMODE((folder / "logs" / "start.out").stat().st_mode) == 0o600

    assert "ready" in run(folder, "status").stdout
    assert "epoch 2" in run(folder, "restart").stdout
    assert "worker ready" in run(folder, "logs").stdout

    again = run(folder, "start", "--detach", "--port", "0")
    assert again.returncode == 3
    assert "already running" in again.stderr

    stopped = run(folder, "stop")
    assert (stopped.returncode, "stopped" in stopped.stderr) == (0, True)
    assert run(folder, "status").returncode == 4


def test_the_first_workers_log_is_its_own(folder: Path) -> None:
    assert run(folder, "start", "--detach", "--port", "0").returncode == 0
    assert run(folder, "stop").returncode == 0
    shown = run(folder, "logs", "default-0")
    assert shown.returncode == 0, shown.stderr
    assert "shutdown_requested" in shown.stdout


def test_a_model_that_cannot_be_loaded(folder: Path, tmp_path: Path) -> None:
    model = files.gguf(tmp_path / "broken.gguf")
    result = run(
        folder, "start", "-d", "--port", "0", f"--model-path={model}", GPUFC_BACKEND="llama"
    )
    assert result.returncode in (2, 3)
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.stderr
    assert run(folder, "status").returncode == 4
