"""The conditions of a measurement, for `scripts/bench` and `scripts/chaos`."""

import contextlib
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import gpufc


def conditions() -> dict[str, Any]:
    """The machine, its load now and the versions, as plain data."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": _gpus(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "gpufc": gpufc.__version__,
        "commit": _output(
            "git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"
        ),
        "llama-cpp-python": _version("llama-cpp-python"),
    }


def program_version(program: Path) -> str | None:
    """The version line that a program of llama.cpp prints; None if it prints none."""
    said = _output(str(program), "--version") or ""
    return next((line for line in said.splitlines() if "version" in line), None)


def _gpus() -> list[str]:
    """NVIDIA's GPUs by name; none without its driver."""
    listed = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return [line.strip() for line in (listed or "").splitlines() if line.strip()]


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _output(*command: str) -> str | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return (done.stdout + done.stderr).strip()
    return None
