"""The commands of PLUGINS.md, as typed, over the scripted engine."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fake_service import FAKE
from tests.service import COMMAND, clean_environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "supervisor/plugins/PLUGINS.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


class Terminal:
    """A shell in a folder that looks like the project's after its installation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "activate").write_text(f"PATH={programs}:$PATH")
        self._program(programs / "python", sys.executable)
        self._program(programs / "gpufc-supervisor", sys.executable, "-P", *COMMAND[1:])
        run = {"GPUFC_PORT": "0", "GPUFC_RUNTIME_DIR": str(folder / "run"), "GPUFC_N_CTX": "128"}
        self._environ = clean_environment() | FAKE | run | {"PYTHONPATH": str(ROOT)}

    def _program(self, path: Path, *command: str) -> None:
        quoted = " ".join(f"'{word}'" for word in command)
        path.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
        path.chmod(0o755)

    def run(self, script: str) -> str:
        """What the script prints. Each of its commands must succeed."""
        done = subprocess.run(
            ["sh", "-ec", script],
            cwd=self._folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


ACTIVATE = ". .venv/bin/activate\n"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    yield made
    made.run(f"{ACTIVATE}gpufc-supervisor stop --now || true")


def test_a_newcomers_plugin_works_and_is_changed(terminal: Terminal, tmp_path: Path) -> None:
    first = BLOCKS[0]
    assert first.startswith(ACTIVATE)
    assert terminal.run(first).strip()
    (row,) = json.loads(terminal.run(f"{ACTIVATE}gpufc-supervisor status --json"))["plugins"]
    assert (row["name"], row["counts"]["failures"]) == ("my_plugin", 0)
    assert row["counts"]["calls"] >= 2
    plugin = tmp_path / "my_plugin.py"
    plugin.write_text(plugin.read_text() + '\nprint("changed")\n')
    script = "gpufc-supervisor upgrade\ngpufc-supervisor logs plugin-my_plugin"
    assert terminal.run(ACTIVATE + script).splitlines()[-1].endswith("changed")


@pytest.mark.slow
def test_the_templates_of_policies_start(terminal: Terminal) -> None:
    (block,) = [one for one in BLOCKS if "my_routing.py" in one]
    terminal.run(ACTIVATE + block)
    rows = json.loads(terminal.run(f"{ACTIVATE}gpufc-supervisor status --json"))["plugins"]
    assert [row["hooks"] for row in rows] == [["on_route"], ["on_batch"]]
