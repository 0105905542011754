"""Runs agents against the real model, or the scripted engine, and tells what each one did.

    python -m tests.clients.agents [--environments FOLDER] [--results tests/clients/RESULTS.md]
                                   [--scripted] [--model MODEL.gguf] [--one-tool] [--most N]
                                   [--n-ctx N] [--record FOLDER]
                                   [AGENT …]

Each agent has an environment of its own in FOLDER, which is kept, and a new home, which
`gpufc-supervisor connect` configures. It gets one task: a file to read. A relay between agent and
service demands the call of the tool that reads it, with its arguments as constants of the tool's
schema, in the first request that has the tool. The rest is as the agent and the model make it.
`--one-tool` has agents offer no other tool, where they can: a small machine takes very long for
their whole prompts. `--most` bounds the tokens of an answer that is not the demanded call: the demo
model repeats itself up to the agent's own limit. `--record` keeps the requests and their answers.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from supervisor import demo_model
from tests import machine, results
from tests.clients.agents.every import AGENTS
from tests.clients.agents.relay import Exchange
from tests.clients.agents.runs import PATIENCE_S, Run, installed, run, version
from tests.integration.fake_service import FAKE
from tests.service import service

COLUMNS = ("agent", "version", "requests", "tokens", "tool", "ended", "printed")
SHOWN = 100
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""A terminal's control sequence (ECMA-48, CSI)."""


def told(name: str, release: str, run: Run) -> tuple[str, ...]:
    """The row of an agent. Pure."""
    asked = Counter((one.path, one.status) for one in run.exchanges)
    return (
        name,
        release,
        ", ".join(f"{count} {path} {status}" for (path, status), count in asked.items()) or "none",
        str(max(map(prompt_tokens, run.exchanges), default=0)),
        "its result was sent" if run.is_told else "was called" if run.is_called else "none",
        "not" if run.ended.status is None else str(run.ended.status),
        _cell(run.ended.printed),
    )


def prompt_tokens(exchange: Exchange) -> int:
    """The tokens of a prompt by the answer's usage, in any dialect."""
    most = 0
    for line in exchange.answer.splitlines():
        line = line.removeprefix("data: ")
        if line.startswith("{") and '"usage"' in line:
            document = json.loads(line)
            for part in (document, document.get("message"), document.get("response")):
                usage = part.get("usage") if isinstance(part, dict) else None
                names = ("prompt_tokens", "input_tokens", "cache_read_input_tokens")
                found = {name: (usage or {}).get(name) or 0 for name in names}
                most = max(most, sum(found.values()))
    return most


def _cell(text: str) -> str:
    text = " ".join(COLOUR.sub("", text).split()).replace("|", "/")
    return text if len(text) <= SHOWN else f"…{text[-SHOWN:]}"


def record(folder: Path, name: str, run: Run) -> None:
    """Keep what an agent and the service said."""
    kept = [one._asdict() for one in run.exchanges]
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=1))
    (folder / f"{name}.out").write_text(run.ended.printed)


def longer(model: Path | None, folder: Path, n_ctx: int) -> Path:
    """A copy of the model that says that it was trained on this context: agents' prompts are longer
    than the demo model's. What it writes then does not matter."""
    assert model, "the demo model is not installed"
    copy = folder / model.name
    copy.write_bytes(model.read_bytes())
    fields = GGUFReader(copy, "r+").fields
    length = fields[f"{fields['general.architecture'].contents()}.context_length"]
    length.parts[-1][0] = n_ctx
    return copy


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Run agents against the service.")
    parser.add_argument("agents", nargs="*", metavar="AGENT", default=list(AGENTS))
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--scripted", action="store_true", help="not the real model")
    parser.add_argument("--model", type=Path, help="else the demo model")
    parser.add_argument("--one-tool", action="store_true", help="shorter prompts")
    parser.add_argument("--most", type=int, help="tokens of an answer; the agent's own limit")
    parser.add_argument("--n-ctx", type=int, default=65536, help="the scripted engine: bytes")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds for an agent")
    options = parser.parse_args(arguments)
    conditions = machine.conditions()
    rows = []
    with tempfile.TemporaryDirectory() as made:
        options.environments = options.environments or Path(made)
        model = longer(options.model or demo_model.find(), Path(made), options.n_ctx)
        config = Path(made) / "gpufc.toml"
        config.write_text(
            f'model_path = "{model}"\nn_ctx = {options.n_ctx}\naliases = "claude-*"\n'
            "sampling = { temperature = 0.0 }\n"
        )
        environ = FAKE if options.scripted else {}
        with service(Path(made) / "run", "--config", str(config), environ=environ) as running:
            for name in options.agents:
                agent = AGENTS[name]
                packages = installed(options.environments, name, agent)
                how: Any = {"scripted": options.scripted, "patience_s": options.patience}
                how |= {"one_tool": options.one_tool, "most": options.most}
                found = run(running, agent, packages, **how)
                if options.record is not None:
                    record(options.record, name, found)
                rows.append(told(name, version(agent, packages), found))
                print(*rows[-1], sep=" | ", flush=True)
    if options.results is not None:
        command = results.spelled("python -m tests.clients.agents", arguments)
        title = "agents, scripted engine" if options.scripted else "agents, real model"
        facts = results.Run(title=title, command=command, conditions=conditions)
        results.append(options.results, facts, results.Table(COLUMNS, rows))


if __name__ == "__main__":
    os.umask(0o077)
    main(sys.argv[1:])
