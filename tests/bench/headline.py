"""The README's table of speed: gpufc's tokens/s over llama-server's, a column for each host.

Everything comes from the results files. A figure is that of the newest run on the demo model which
played the scenario beside llama-server. Not shown: quick runs, those of a changed configuration or
of uncommitted changes.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.scenarios import RATE, SCENARIOS
from tests.readme import README, Block
from tests.results import Section, sections

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHOWN = ("short1", "short8", "short16", "long1", "gpu1", "gpu64")
"""One row for each scenario."""
CHANGED = frozenset(("--set", "--llama-server-arguments", "--quick", "--aiperf"))
"""Options of runs that do not show the servers as they are, under our load, for long enough."""
BLOCK = Block(holds="speed", writer="scripts/bench --headline")
MACHINE = re.compile(r"(?P<processor>.+?), (?P<cores>\d+) cores, (\d+ GiB, )?(?P<gpus>.+)")
COMMIT = re.compile(r"[0-9a-f]+")
"""Commits with further changes, and unknown ones, are spelled with more words."""


class Host(NamedTuple):
    """A column. Its order: processors by their cores, then GPUs. `n_cores` is 0 for a GPU."""

    is_gpu: bool
    n_cores: int
    name: str

    def __str__(self) -> str:
        return self.name if self.is_gpu else f"{self.name}, {self.n_cores} cores"


class Figure(NamedTuple):
    """A cell: the ratio as its results file has it, with the run's commit and time."""

    host: Host
    scenario: str
    ratio: str
    commit: str
    at: str


def processor(machine: str) -> Host | None:
    """The host of a run on the CPU: a kind of processor and its number of cores."""
    found = MACHINE.fullmatch(machine)
    if found is None:
        return None
    name = re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b|@.*", "", found["processor"])
    return Host(is_gpu=False, n_cores=int(found["cores"]), name=" ".join(name.split()))


def gpu(machine: str) -> Host | None:
    """The host of a run on a GPU: its kind. The machine's number of them is not the run's."""
    found = MACHINE.fullmatch(machine)
    if found is None or found["gpus"] == "no GPU":
        return None
    return Host(is_gpu=True, n_cores=0, name=found["gpus"].partition(",")[0])


SOURCES: Sequence[tuple[Path, Callable[[str], Host | None]]] = (
    (Path(__file__).with_name("RESULTS.md"), processor),
    (Path(__file__).with_name("GPU.md"), gpu),
)
"""The results files, each with the part of a machine that its runs measure."""


def figures(text: str, host_of: Callable[[str], Host | None]) -> list[Figure]:
    """Every figure of a results file that may be shown. Pure."""
    shown = (section for section in sections(text) if _is_shown(section))
    return [figure for section in shown for figure in _figures(section, host_of)]


def _is_shown(section: Section) -> bool:
    words = shlex.split(section.facts.get("command", "").strip("`"))
    is_changed = any(word.partition("=")[0] in CHANGED for word in words)
    is_committed = COMMIT.fullmatch(section.facts.get("commit", "")) is not None
    return f" on {MODEL}," in section.title and is_committed and not is_changed


def _figures(section: Section, host_of: Callable[[str], Host | None]) -> Iterator[Figure]:
    host = host_of(section.facts.get("machine", ""))
    if host is None or "ratio" not in section.table.columns:
        return
    for scenario, metric, _, other, ratio in section.table.rows:
        if scenario in SHOWN and metric == RATE and other.startswith("llama-server: "):
            median = ratio.partition(" ")[0]
            yield Figure(host, scenario, median, section.facts["commit"], section.at)


def lines(found: Iterable[Figure]) -> str:
    """The table of the newest figures. A cell of another commit than its column's newest names
    it. Pure."""
    columns = _newest(found)
    commits = [max(column.values(), key=_at).commit for column in columns.values()]
    named = list(zip(columns.values(), commits, strict=True))
    rows = [["prompt + answer", *map(str, columns)], ["---"] * (len(columns) + 1)]
    rows += [
        [_load(scenario), *(_cell(column.get(scenario), commit) for column, commit in named)]
        for scenario in SHOWN
        if any(scenario in column for column in columns.values())
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in [*rows, ["commit", *commits]])


def _newest(found: Iterable[Figure]) -> dict[Host, dict[str, Figure]]:
    """Each host's newest figures by scenario."""
    columns: dict[Host, dict[str, Figure]] = {}
    for figure in sorted(found, key=_at):
        columns.setdefault(figure.host, {})[figure.scenario] = figure
    return dict(sorted(columns.items()))


def _at(figure: Figure) -> str:
    return figure.at


def _cell(figure: Figure | None, commit: str) -> str:
    if figure is None:
        return ""
    return figure.ratio if figure.commit == commit else f"{figure.ratio} ({figure.commit})"


def _load(scenario: str) -> str:
    bounds, workload = SCENARIOS[scenario].bounds, SCENARIOS[scenario].workload
    streams = f"{bounds.streams} stream{'s' if bounds.streams > 1 else ''}"
    return f"{streams}, {workload.prompt_tokens:,} + {workload.output_tokens} tokens"


def table() -> str:
    """The table of the results files. Raises `OSError`."""
    return lines(
        figure for path, host_of in SOURCES for figure in figures(path.read_text(), host_of)
    )


def write() -> None:
    """Write the table to the README. Raises `OSError`, and `ValueError` without marks."""
    README.write_text(BLOCK.replaced(README.read_text(), table()))
