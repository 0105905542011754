"""How hints spell the program, so that they can be pasted."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from supervisor import program


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runnable console script in an environment that is in no PATH yet."""
    path = tmp_path / "my project" / ".venv" / "bin" / program.NAME
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.setenv("PATH", "/usr/bin")
    for name in ("VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT"):
        monkeypatch.delenv(name, raising=False)
    return path


def on_path(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}/usr/bin")


def test_the_name_suffices_where_path_finds_it(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path(script, monkeypatch)
    assert program.command("logs -f") == "gpufc-supervisor logs -f"


def test_another_one_on_path_is_not_taken_for_ours(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / program.NAME
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.spelling() == shlex.quote(str(script))


def test_below_the_current_folder_it_is_relative(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(script.parent.parent.parent)
    assert program.command("stop") == ".venv/bin/gpufc-supervisor stop"


def test_in_the_root_folder_it_is_absolute(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert program.command("stop") == f"{shlex.quote(str(script))} stop"


def test_a_path_that_our_own_script_set_is_not_the_callers(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under `scripts/start`. An activated environment has a prompt as well."""
    on_path(script, monkeypatch)
    monkeypatch.setenv("VIRTUAL_ENV", str(script.parent.parent))
    monkeypatch.chdir(script.parent.parent.parent)
    assert program.spelling() == ".venv/bin/gpufc-supervisor"
    monkeypatch.setenv("VIRTUAL_ENV_PROMPT", "(.venv) ")
    assert program.spelling() == "gpufc-supervisor"


def test_without_a_script_it_is_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert program.command("status") == f"{tmp_path}/python -m supervisor.cli status"


def test_the_runtime_folder_is_quoted() -> None:
    assert program.command("stop", Path("/a b")).endswith(" stop --runtime-dir '/a b'")


def test_pip_is_named_such_that_it_installs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert program.pip("install x") == f"{tmp_path}/python -m pip install x"
    for name in ("pip", "python"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.pip("install x") == "pip install x"
