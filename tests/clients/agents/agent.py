"""An agent: how it is installed, configured and started."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.clients.agents.relay import Demand

CONTENT = "heliotrope 4711"
"""What the task's file says. An agent that sends it has run its tool."""
TASK = "Read the file note.txt and say which flower is named there."


class Place(NamedTuple):
    """Where an agent runs: its packages, its home, its working folder, and its service."""

    packages: Path
    home: Path
    work: Path
    url: str
    model: str
    task: str

    @property
    def note(self) -> Path:
        return self.work / "note.txt"

    @property
    def node(self) -> Path:
        """The Node that runs this machine's npm."""
        return Path(shutil.which("node") or "node")

    def program(self, name: str) -> Path:
        """A program of the npm packages, or of the Python environment."""
        ours = self.packages / "bin" / name
        return ours if ours.exists() else self.packages / "node_modules" / ".bin" / name


class Agent(NamedTuple):
    """`connect` is its name for the command of that name; without one `files` writes what it
    needs, as its documentation says. `demand` is the call that reads the note. `only` are words
    of its command line with which it offers that tool only, so that its prompt is short. Those of
    `qwen` also replace its own system text, which has some 9,000 tokens."""

    packages: tuple[str, ...]
    command: Callable[[Place], list[str | Path]]
    demand: Callable[[Place], Demand | None]
    connect: str = ""
    files: Callable[[Place], Mapping[str, Any]] = lambda _place: {}
    environ: Callable[[Place], Mapping[str, str]] = lambda _place: {}
    python: bool = False
    only: tuple[str, ...] = ()
