"""Coding agents over the scripted engine, each with one task that changes or reads a file."""

import json
import shutil
from pathlib import Path

import pytest

from tests.clients.environment import done, npm_with, python_with
from tests.clients.table import Seen
from tests.service import Service

pytestmark = pytest.mark.slow

CONTENT = "hello tea\n"
EDIT = f"note.txt\n```\n{CONTENT}```\n"
PROVIDER = {
    "npm": "@ai-sdk/openai-compatible",
    "models": {"default": {"name": "default"}},
}


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


def test_opencode_reads_a_file_with_its_tool(
    running: Service, seen: Seen, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder = npm_with(tmp_path_factory.mktemp("opencode") / "npm", "opencode-ai")
    packages = folder / "node_modules"
    program = packages / "opencode-linux-x64" / "bin" / "opencode"
    note = tmp_path / "note.txt"
    note.write_text("[[stop@8]]\n")
    options = {"baseURL": f"{running.url}/v1", "apiKey": "none"}
    (tmp_path / "opencode.json").write_text(
        json.dumps(
            {
                "provider": {"gpufc": PROVIDER | {"options": options}},
                "model": "gpufc/default",
                "small_model": "gpufc/default",
                "autoupdate": False,
                "share": "disabled",
            }
        )
    )
    call = json.dumps({"name": "read", "arguments": {"filePath": str(note)}})
    said = f"Reading.<tool_call>{call}</tool_call>"
    # an argument of the command line would come with its quotes escaped
    printed = done(
        *(program, "run", "--format", "json"),
        cwd=tmp_path,
        given=f"[[say:{said}]][[stop@{len(said)}]]",
        environ={
            **{f"XDG_{name}_HOME": str(tmp_path / name) for name in ("DATA", "CONFIG", "CACHE")},
            "HOME": str(tmp_path),
            "PATH": f"{Path(shutil.which('node') or 'node').parent}:/usr/bin:/bin",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
        },
    )
    parts = [json.loads(line)["part"] for line in printed.splitlines() if line.startswith("{")]
    (used,) = [part for part in parts if part["type"] == "tool"]
    assert (used["tool"], used["state"]["status"]) == ("read", "completed")
    assert [part["text"] for part in parts if part["type"] == "text"] == ["Reading.", "Reading."]
    manifest = json.loads((packages / "opencode-ai" / "package.json").read_text())
    seen.add({"opencode-ai": manifest["version"]}, "one task with a tool")
