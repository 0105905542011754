"""The scripts: short, executable, valid sh, and quick when there is nothing to install."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = [
    *("scripts/start", "scripts/test", "scripts/lint", "scripts/check"),
    *("scripts/bench", "scripts/chaos", "scripts/certificate", "scripts/fuzz", ".ci/run"),
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_is_short_strict_and_executable(script: str) -> None:
    path = ROOT / script
    text = path.read_text()
    assert os.access(path, os.X_OK)
    assert "\nset -eu\n" in text
    assert len(text.splitlines()) < 20


@pytest.mark.parametrize("script", [*SCRIPTS, "scripts/env"])
def test_the_shell_can_read_it(script: str) -> None:
    shell = "bash" if script == ".ci/run" else "sh"
    subprocess.run([shell, "-n", ROOT / script], check=True, timeout=60)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an environment of programs that print their arguments."""
    (tmp_path / "scripts").mkdir()
    for name in ("env", "start", "test"):
        (tmp_path / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
        (tmp_path / "scripts" / name).chmod(0o755)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "gpufc-supervisor"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" in "$PWD"\n')
        (programs / name).chmod(0o755)
    return tmp_path


def run(project: Path, script: str, *args: str) -> list[str]:
    elsewhere = project / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    result = subprocess.run(
        [project / "scripts" / script, *args],
        capture_output=True, text=True, check=True, timeout=60, cwd=elsewhere,
        env={"PATH": os.environ["PATH"], "VIRTUAL_ENV": str(project / "venv")},
    )  # fmt: skip
    return result.stdout.splitlines()


def installs(lines: list[str]) -> int:
    return sum("pip install" in line for line in lines)


def test_start_installs_once_and_passes_its_options_on(project: Path) -> None:
    first = run(project, "start", "--port", "0")
    assert installs(first) == 1
    assert first[-1] == f"gpufc-supervisor start --port 0 in {project / 'elsewhere'}"
    assert installs(run(project, "start")) == 0


def test_it_installs_again_when_the_project_file_changed(project: Path) -> None:
    run(project, "start")
    (project / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert installs(run(project, "start")) == 1


def test_test_leaves_the_slow_ones_out_unless_asked(project: Path) -> None:
    dist = "-n 4 --dist loadfile --no-loadscope-reorder"
    asked = f"python -m pytest -m not slow {dist} -k x"
    assert run(project, "test", "-k", "x")[-1] == f"{asked} in {project}"
    assert run(project, "test", "--full", "-x")[-1] == f"python -m pytest -x in {project}"
