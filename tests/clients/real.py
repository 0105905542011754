"""Public clients against the real model: what each of them was answered, as a table.

    python -m tests.clients.real [--environments FOLDER] [--results tests/clients/RESULTS.md]
                                 [--only API …]

Each client of PyPI and npm has an environment of its own in FOLDER, which is kept, and runs its
script in `scripts`: a whole answer, a stream, a call of a tool. The call is demanded where the
client can say so. Sampling is greedy by the service's configuration, so that the stream can be held
to the whole answer. A client that fails has a row that says so.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from supervisor import demo_model
from tests import machine, results
from tests.clients.environment import npm_with, printed, python_with
from tests.clients.test_python_clients import CHATS
from tests.service import Service, service

SCRIPTS = Path(__file__).parent / "scripts"
PROMPT = "What is 2 + 2?"
TOOL_PROMPT = "Look up the word tea."
NPM = ("openai", "@anthropic-ai/sdk", "ollama", "ai", "zod")
NPM_PROVIDERS = ("@ai-sdk/openai", "@ai-sdk/anthropic", "@ai-sdk/openai-compatible")
JAVASCRIPT = ("openai", "openai-responses", "@anthropic-ai/sdk", "ollama", *NPM_PROVIDERS)
CANNOT_DEMAND = ("ollama_chat/default", "langchain-ollama", "llama-index-llms-ollama")
"""Clients of Ollama's API, which has no choice of tools."""
COLUMNS = ("client", "version", "api", "answered", "stream", "calls")
SHOWN = 60


class Client(NamedTuple):
    """`command` is what runs the client's script."""

    kind: str
    command: tuple[str | Path, ...]
    cwd: Path | None = None
    forced: tuple[str, ...] = ()


def clients(folder: Path) -> Iterator[Client]:
    """Every client, with its environment made."""
    for script, kind, packages in CHATS:
        forced = () if kind in CANNOT_DEMAND or script == "chat_pydantic_ai.py" else ("forced",)
        home = folder / script.removesuffix(".py")
        python = home / "bin" / "python"
        if not python.exists():
            python = python_with(home, *packages)
        yield Client(kind, (python, SCRIPTS / script), forced=forced)
    home = folder / "npm"
    if not home.exists():
        npm_with(home, *NPM, *NPM_PROVIDERS)
    # packages are found from where the script is
    script = home / "chat.mjs"
    script.write_bytes((SCRIPTS / "chat.mjs").read_bytes())
    for kind in JAVASCRIPT:
        yield Client(kind, ("node", script), cwd=home)


def row(client: Client, url: str) -> tuple[str, ...]:
    """What one client says of itself and of its answers."""
    given = (url, PROMPT, TOOL_PROMPT, client.kind, *client.forced)
    try:
        found = printed(*client.command, *given, cwd=client.cwd)
    except (AssertionError, subprocess.SubprocessError, ValueError) as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        told = [line for line in lines if "Error" in line] or lines
        return (client.kind, "", client.kind, _cell(f"failed: {told[-1]}"), "", "")
    versions = found["versions"]
    return (
        ", ".join(versions),
        ", ".join(versions.values()),
        client.kind,
        _cell(found["whole"]),
        "the same" if found["whole"] == found["streamed"] else _cell(found["streamed"]),
        _cell(", ".join(map(json.dumps, found["called"])) or "none"),
    )


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def run(running: Service, folder: Path, only: Sequence[str]) -> list[tuple[str, ...]]:
    """The rows of all clients, or of some, by what the column `api` has for them."""
    found = []
    for client in clients(folder):
        if only and client.kind not in only:
            continue
        found.append(row(client, running.url))
        print(*found[-1], sep=" | ", flush=True)
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Run public clients against the real model.")
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", nargs="*", default=())
    given: Any = parser.parse_args(arguments)
    conditions = machine.conditions()
    with tempfile.TemporaryDirectory() as made:
        folder = given.environments or Path(made)
        config = Path(made) / "gpufc.toml"
        config.write_text(
            f'model_path = "{demo_model.find()}"\nn_ctx = 2048\naliases = "claude-*"\n'
            "sampling = { temperature = 0.0 }\n"
        )
        with service(Path(made) / "run", "--config", str(config)) as running:
            rows = run(running, folder, given.only)
    if given.results is not None:
        command = results.spelled("python -m tests.clients.real", arguments)
        facts = results.Run(title="clients, real model", command=command, conditions=conditions)
        results.append(given.results, facts, results.Table(COLUMNS, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
