"""Runs one agent: its environment, its home, its task, and what it and the service said."""

import contextlib
import json
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.clients.agents.agent import CONTENT, TASK, Agent, Place
from tests.clients.agents.relay import Exchange, relay
from tests.clients.environment import done, npm_with, python_with
from tests.service import COMMAND, Service, clean_environment

PATIENCE_S = 600.0
STOPS = (" [[stop@300]]", " [[stop@8]]")
"""Words of the task and of its file that end the scripted engine's answers."""


class Ended(NamedTuple):
    """`status` is None for an agent that was ended because it took too long."""

    status: int | None
    printed: str


class Run(NamedTuple):
    """An agent's run: all that it asked, with the answers, and its end."""

    exchanges: list[Exchange]
    ended: Ended

    @property
    def is_called(self) -> bool:
        """Whether its tool was demanded from the model."""
        return any(one.demanded for one in self.exchanges)

    @property
    def is_told(self) -> bool:
        """Whether it has run its tool: it sent what the file says."""
        return any(CONTENT in json.dumps(one.body) for one in self.exchanges)


def run(
    running: Service,
    agent: Agent,
    packages: Path,
    *,
    scripted: bool,
    patience_s: float = PATIENCE_S,
    one_tool: bool = False,
    most: int | None = None,
) -> Run:
    """Have an agent do the task in a new home, with its one tool if it can be told to. It is ended
    after `patience_s`. `most` bounds the tokens of answers. In what it printed the paths begin at
    the folder of its home."""
    model = running.status()["models"][0]["name"]
    stops = STOPS if scripted else ("", "")
    with tempfile.TemporaryDirectory(prefix="agent", ignore_cleanup_errors=True) as folder:
        home, work = Path(folder) / "home", Path(folder) / "work"
        place = Place(packages, home, work, running.url, model, TASK + stops[0])
        home.mkdir()
        work.mkdir()
        place.note.write_text(f"{CONTENT}{stops[1]}\n")
        with relay(running.url, agent.demand(place), most) as between:
            place = place._replace(url=between.url)
            environ = configured(agent, place, running)
            try:
                words = [*agent.command(place), *(agent.only if one_tool else ())]
                ended = started(words, place, environ, patience_s)
            finally:
                _end_daemons(home)
    return Run(between.exchanges, ended._replace(printed=ended.printed.replace(folder, "")))


def _end_daemons(home: Path) -> None:
    """End what an agent has left running: some detach a process for later sessions."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HOME") == str(home):
                process.kill()


def installed(folder: Path, name: str, agent: Agent) -> Path:
    """The agent's environment, made if it is not there."""
    home = folder / name
    if not home.exists():
        if agent.python:
            python_with(home, *agent.packages)
        else:
            npm_with(home, *agent.packages, scripts=True)
    return home


def version(agent: Agent, packages: Path) -> str:
    name = agent.packages[0]
    if agent.python:
        asked = f"from importlib.metadata import version; print(version({name!r}))"
        return done(packages / "bin" / "python", "-c", asked).strip()
    manifest = packages / "node_modules" / name / "package.json"
    return str(json.loads(manifest.read_text())["version"])


def configured(agent: Agent, place: Place, running: Service) -> dict[str, str]:
    """Write what the agent needs into its home. Returns its variables."""
    environ = {
        "HOME": str(place.home),
        "PATH": f"{place.node.parent}:/usr/local/bin:/usr/bin:/bin",
        "TERM": "dumb",
        **agent.environ(place),
    }
    for path, content in agent.files(place).items():
        file = place.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    if agent.connect:
        ran = (*COMMAND, "connect", agent.connect, "--runtime-dir", str(running.runtime.path))
        own = clean_environment() | {"HOME": str(place.home)}
        shown = subprocess.run(ran, env=own, capture_output=True, text=True, check=True).stdout
        if shown.startswith("export "):
            shown = shown.replace(running.url, place.url)
            environ |= dict(word.split("=", 1) for word in shlex.split(shown) if word != "export")
            return environ
        if "added by hand" in shown:
            head, text = shown.split("\n", 1)
            file = place.home / head.split()[1].removeprefix("~/").rstrip(",")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        else:
            subprocess.run([*ran, "--write"], env=own, capture_output=True, check=True)
        for file in filter(Path.is_file, place.home.rglob("*")):
            file.write_text(file.read_text().replace(running.url, place.url))
    return environ


def started(
    command: list[str | Path], place: Place, environ: Mapping[str, str], patience_s: float
) -> Ended:
    try:
        ended = subprocess.run(
            command,
            cwd=place.work,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        return Ended(None, _text(err.stdout) + _text(err.stderr))
    return Ended(ended.returncode, ended.stdout + ("" if ended.stdout.strip() else ended.stderr))


def _text(printed: Any) -> str:
    return printed.decode(errors="replace") if isinstance(printed, bytes) else printed or ""
