"""Results files: one section with one table for each run, written from the run's own figures.

    run = results.Run(title="fault matrix", command=results.spelled("scripts/chaos", sys.argv[1:]),
                      conditions=machine.conditions())
    results.append(Path("tests/chaos/RESULTS.md"), run, results.Table(columns, rows))

`tests.machine.conditions` is called before the run, so that the load is the machine's own.
`sections` reads such a file.
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

HEAD = """\
# Results

The scripts write this file (`--results`), one section a run, the newest last. Do not edit figures:
repeat the run. A figure is of the commit, machine and command that its section names.
"""


class Run(Struct, frozen=True, kw_only=True):
    """One run of a script. `conditions` are plain data of `tests.machine.conditions`."""

    title: str
    command: str
    conditions: Mapping[str, Any]


class Table(Struct, frozen=True):
    """Cells as they are shown. Each row has as many cells as there are columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(Struct, frozen=True, kw_only=True):
    """A run as a results file has it. `facts` has the lines above the table by their names."""

    title: str
    at: str
    facts: Mapping[str, str]
    table: Table


def append(path: Path, run: Run, table: Table) -> None:
    """Add a run to a results file, which is made if it does not exist. Raises `OSError`."""
    is_new = not path.exists() or not path.stat().st_size
    with path.open("a", encoding="utf-8") as file:
        file.write((HEAD if is_new else "") + section(run, table))


def section(run: Run, table: Table) -> str:
    """A run as Markdown. Pure. Raises `ValueError` for a row of another length."""
    known = run.conditions
    facts = {
        "commit": _commit(known.get("commit")),
        "machine": _machine(known),
        "load": _load(known.get("load_average")),
        "versions": _versions(known),
        "command": f"`{run.command}`",
    }
    lines = ["", f"## {run.title}, {known.get('at', 'at an unknown time')}", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items() if value]
    return "\n".join([*lines, "", *_table(table)]) + "\n"


def sections(text: str) -> list[Section]:
    """The runs of a results file, in its order. Pure."""
    return [_read(part) for part in text.split("\n## ")[1:]]


def _read(part: str) -> Section:
    heading, *lines = part.splitlines()
    title, _, at = heading.rpartition(", ")
    facts = (line.removeprefix("- ").partition(": ") for line in lines if line.startswith("- "))
    rows = [_cells(line) for line in lines if line.startswith("| ")]
    return Section(
        title=title,
        at=at,
        facts={name: value for name, _, value in facts},
        table=Table(rows[0] if rows else (), rows[2:]),
    )


def _cells(line: str) -> list[str]:
    parts = re.split(r"(?<!\\)\|", line)[1:-1]
    return [part.strip().replace("\\|", "|") for part in parts]


def spelled(program: str, arguments: Sequence[str]) -> str:
    """A command line for a results file: absolute paths, which are one machine's, as names."""
    return " ".join([program, *(shlex.quote(_without_folder(word)) for word in arguments)])


def _without_folder(word: str) -> str:
    option, equals, value = word.partition("=")
    if equals and os.path.isabs(value):
        return f"{option}={os.path.basename(value)}"
    return os.path.basename(word) if os.path.isabs(word) else word


def _table(table: Table) -> list[str]:
    lines = [_row(table.columns), _row(["---"] * len(table.columns))]
    for row in table.rows:
        if len(row) != len(table.columns):
            raise ValueError(f"{len(row)} cells for {len(table.columns)} columns: {row}")
        lines.append(_row(row))
    return lines


def _row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _commit(described: str | None) -> str:
    if not described:
        return "unknown (not a Git checkout)"
    if described.endswith("-dirty"):
        return f"{described.removesuffix('-dirty')} with changes that are not committed"
    return described


def _machine(known: Mapping[str, Any]) -> str:
    memory = known.get("memory_bytes")
    parts = [
        str(known.get("processor", "unknown processor")),
        f"{known.get('cores', '?')} cores",
        f"{memory / 2**30:.0f} GiB" if memory else "",
        ", ".join(known.get("gpus") or ()) or "no GPU",
    ]
    return ", ".join(part for part in parts if part)


def _versions(known: Mapping[str, Any]) -> str:
    """Versions of the programs that took part, as far as the conditions have them."""
    names = {"python": "Python", "llama-cpp-python": "llama-cpp-python", "llama-server": ""}
    return ", ".join(
        f"{name} {known[key]}".strip() for key, name in names.items() if known.get(key)
    )


def _load(averages: Sequence[float] | None) -> str:
    if not averages:
        return "unknown"
    one, five, fifteen = averages
    return f"{one:.1f}, {five:.1f} and {fifteen:.1f} before the run (1, 5 and 15 min)"
