"""The container images' health check, run against a control socket."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.supervisor.control.control_server import Server, server

__all__ = ["server"]

FOLDER = Path(__file__).parents[2] / "scripts/deploy/docker"


def health_check(dockerfile: str) -> list[str]:
    """The command of the image's HEALTHCHECK, with this interpreter for the image's."""
    text = (FOLDER / dockerfile).read_text().replace("\\\n", "")
    (line,) = (line for line in text.splitlines() if line.startswith("HEALTHCHECK"))
    program, *rest = json.loads(line.split(" CMD ")[1])
    assert program in {"python", "python3"}
    return [sys.executable, *rest]


def code_of(command: Sequence[str], folder: Path) -> int:
    environ = os.environ | {"GPUFC_RUNTIME_DIR": str(folder)}
    return subprocess.run(command, env=environ, capture_output=True, timeout=60).returncode


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.cuda"])
def test_a_front_is_healthy_while_its_control_socket_answers(
    server: Server, dockerfile: str
) -> None:
    _, path, end = server
    command = health_check(dockerfile)
    assert code_of(command, path.parent) == 0
    end()
    assert code_of(command, path.parent) != 0


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.cuda"])
def test_the_check_looks_where_the_image_puts_the_runtime_folder(dockerfile: str) -> None:
    assert "GPUFC_RUNTIME_DIR=/var/lib/gpufc/run" in (FOLDER / dockerfile).read_text()
