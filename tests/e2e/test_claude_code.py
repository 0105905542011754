"""Claude Code, as npm has it, at a service over the scripted engine: one task with a tool."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fake_service import FAKE
from tests.service import Service, service

pytestmark = pytest.mark.slow

PACKAGE = "@anthropic-ai/claude-code"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With room for a prompt of which each byte is a token."""
    folder = tmp_path_factory.mktemp("claude-code") / "run"
    environ = FAKE | {"GPUFC_ALIASES": "claude-*", "GPUFC_FAKE_SCRIPT": "step_ms=1"}
    with service(folder, "--n-ctx", "200000", environ=environ) as started:
        yield started


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, with its own installation step done."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.fail("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true}')
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=240)
    package = folder / "node_modules" / PACKAGE
    subprocess.run([node, "install.cjs"], cwd=package, check=True, capture_output=True, timeout=60)
    return folder / "node_modules" / ".bin" / "claude"


def test_a_task_with_a_tool_is_done(running: Service, program: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("[[stop@8]]\n")
    call = json.dumps({"name": "Read", "arguments": {"file_path": str(note)}})
    said = f"Reading.<tool_call>{call}</tool_call>"
    environ = {
        "PATH": str(Path(shutil.which("node") or "node").parent) + ":/usr/bin:/bin",
        "HOME": str(tmp_path),
        "ANTHROPIC_BASE_URL": running.url,
        "ANTHROPIC_AUTH_TOKEN": "unused",
        "ANTHROPIC_MODEL": "claude-x",
    }
    task = f"[[say:{said}]][[stop@{len(said)}]]"
    done = subprocess.run(
        [program, "-p", task, "--output-format", "json", "--allowedTools", "Read"],
        env=environ,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["is_error"], found["num_turns"], found["result"]) == (False, 2, "Reading.")
    usage = found["usage"]
    assert usage["cache_read_input_tokens"] > 0.95 * usage["input_tokens"]  # the first turn's
