"""Coding agents over the scripted engine, each with one task that changes or reads a file."""

from pathlib import Path

import pytest

from tests.clients.agents.every import AGENTS
from tests.clients.agents.runs import installed, run, version
from tests.clients.environment import done, python_with
from tests.clients.table import Seen
from tests.service import Service

pytestmark = pytest.mark.slow

CONTENT = "hello tea\n"
EDIT = f"note.txt\n```\n{CONTENT}```\n"


def test_aider_edits_a_file(
    running: Service, seen: Seen, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    python = python_with(tmp_path_factory.mktemp("aider") / "venv", "aider-chat")
    note = tmp_path / "note.txt"
    note.write_text("nothing\n")
    flags = ["--no-check-update", "--analytics-disable", "--no-show-model-warnings", "--no-pretty"]
    done(
        python.parent / "aider",
        *("--model", "openai/default", "--edit-format", "whole", "--map-tokens", "0"),
        *(*flags, "--no-git", "--yes-always"),
        *("--message", f"[[say:{EDIT}]][[stop@{len(EDIT)}]]", note.name),
        cwd=tmp_path,
        environ={
            "HOME": str(tmp_path),
            "OPENAI_API_BASE": f"{running.url}/v1",
            "OPENAI_API_KEY": "none",
        },
    )
    assert note.read_text() == CONTENT
    version = done(python.parent / "aider", "--version", cwd=tmp_path).split()[-1]
    seen.add({"aider-chat": version}, "one edit of a file")


@pytest.mark.parametrize("name", [name for name in AGENTS if name != "aider"])
def test_an_agent_runs_its_tool(
    running: Service, seen: Seen, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    agent = AGENTS[name]
    packages = installed(tmp_path_factory.mktemp("agents"), name, agent)
    found = run(running, agent, packages, scripted=True)
    assert found.is_told, found.ended.printed
    assert found.ended.status == 0, found.ended.printed
    assert {one.status for one in found.exchanges} == {200}
    seen.add({agent.packages[0]: version(agent, packages)}, "one task with a tool")
