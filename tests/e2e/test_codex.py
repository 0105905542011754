"""Codex CLI over Responses: a whole turn with a tool, with a worker that dies in the middle.

It runs where `codex` is installed (`npm install -g @openai/codex`). The scripted engine calls the
tool for certain. The tool's output has the directive that ends the next answer at once.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fake_service import FAKE
from tests.service import Service, clean_environment, service

CODEX = shutil.which("codex")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CODEX is None, reason="Codex CLI is not installed"),
]

SETTINGS = """
model = "default"
model_provider = "gpufc"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.gpufc]
name = "gpufc"
base_url = "{url}/v1"
wire_api = "responses"
"""
COMMAND = "printf %sstop@1%s '[''[' ']'']'"
ARGUMENTS = json.dumps({"name": "exec_command", "arguments": {"cmd": COMMAND}})
CALL = f"<tool_call>{ARGUMENTS}</tool_call>"
FLAGS = ["--skip-git-repo-check", "--json", "--dangerously-bypass-approvals-and-sandbox"]


@pytest.fixture
def started(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    size = {"GPUFC_N_CTX": str(request.param)}
    with service(tmp_path / "run", environ=FAKE | size) as running:
        yield running


async def codex(running: Service, folder: Path, prompt: str) -> list[dict[str, Any]]:
    """The events that Codex reports of one turn."""
    home, work = folder / "home", folder / "work"
    for made in (home, work):
        made.mkdir()
    (home / "config.toml").write_text(SETTINGS.format(url=running.url))
    process = await asyncio.create_subprocess_exec(
        *(str(CODEX), "exec", *FLAGS, prompt),
        cwd=work,
        env=clean_environment() | {"CODEX_HOME": str(home), "PATH": os.environ["PATH"]},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(120):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return [json.loads(line) for line in printed.splitlines() if line.startswith(b"{")]


@pytest.mark.parametrize("started", [100_000], indirect=True)
async def test_codex_runs_a_command_while_the_worker_dies(started: Service, tmp_path: Path) -> None:
    once = tmp_path / "killed"
    prompt = f"[[kill@20 once={once}]][[say:{CALL}]][[stop@{len(CALL)}]]"
    events = await codex(started, tmp_path, prompt)
    assert once.exists()
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    (run,) = (item for item in items if item["type"] == "command_execution")
    assert (run["exit_code"], run["aggregated_output"]) == (0, "[[stop@1]]")
    assert items[-1]["type"] == "agent_message"
    assert events[-1]["type"] == "turn.completed"
    assert events[-1]["usage"]["cached_input_tokens"] > 0


@pytest.mark.parametrize("started", [8192], indirect=True)
async def test_codex_knows_a_conversation_that_is_too_long(
    started: Service, tmp_path: Path
) -> None:
    events = await codex(started, tmp_path, "Hello")
    assert events[-1]["type"] == "turn.failed"
    assert "context window" in events[-1]["error"]["message"]
