"""Results files name where their figures come from."""

from pathlib import Path

import pytest

from tests import machine
from tests.results import HEAD, Run, Table, append, section, sections, spelled

CONDITIONS = {
    "at": "2026-01-02T03:04:05Z",
    "commit": "abc1234",
    "processor": "A Processor",
    "cores": 2,
    "memory_bytes": 8 * 2**30,
    "gpus": [],
    "load_average": [0.5, 0.25, 0.0],
}
TABLE = Table(("metric", "value"), (("tokens/s", "12"), ("a|b", "3")))


def run(**changed: object) -> Run:
    return Run(title="a run", command="scripts/bench", conditions=CONDITIONS | changed)


def test_a_section_names_date_commit_machine_load_and_command() -> None:
    assert section(run(), TABLE).splitlines() == [
        "",
        "## a run, 2026-01-02T03:04:05Z",
        "",
        "- commit: abc1234",
        "- machine: A Processor, 2 cores, 8 GiB, no GPU",
        "- load: 0.5, 0.2 and 0.0 before the run (1, 5 and 15 min)",
        "- command: `scripts/bench`",
        "",
        "| metric | value |",
        "| --- | --- |",
        "| tokens/s | 12 |",
        "| a\\|b | 3 |",
    ]


def test_uncommitted_changes_and_gpus_are_said() -> None:
    text = section(run(commit="abc1234-dirty", gpus=["A GPU, 8 MiB", "B"]), TABLE)
    assert "- commit: abc1234 with changes that are not committed\n" in text
    assert "8 GiB, A GPU, 8 MiB, B\n" in text


def test_versions_are_said_where_they_are_known() -> None:
    text = section(run(**{"python": "3.11.1", "llama-server": "version: 8000 (abc)"}), TABLE)
    assert "- versions: Python 3.11.1, version: 8000 (abc)\n" in text


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        section(run(), Table(("metric", "value"), (("alone",),)))


def test_runs_are_appended_below_one_head(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    append(path, run(), TABLE)
    append(path, run(at="2026-02-02T00:00:00Z"), TABLE)
    text = path.read_text()
    assert text.startswith(HEAD)
    assert text.count("# Results\n") == 1
    assert text.index("2026-01-02T") < text.index("2026-02-02T")


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    append(path, run(commit="abc1234-dirty"), TABLE)
    append(path, run(at="2026-02-02T00:00:00Z"), Table(("alone",), ()))
    first, second = sections(path.read_text())
    assert (first.title, first.at) == ("a run", "2026-01-02T03:04:05Z")
    assert first.facts == {
        "commit": "abc1234 with changes that are not committed",
        "machine": "A Processor, 2 cores, 8 GiB, no GPU",
        "load": "0.5, 0.2 and 0.0 before the run (1, 5 and 15 min)",
        "command": "`scripts/bench`",
    }
    assert first.table.columns == ["metric", "value"]
    assert first.table.rows == [["tokens/s", "12"], ["a|b", "3"]]
    assert (second.at, second.table.columns, second.table.rows) == (
        "2026-02-02T00:00:00Z", ["alone"], [],
    )  # fmt: skip


def test_a_command_is_spelled_without_the_machines_folders() -> None:
    words = ["--model", "/home/me/a model.gguf", "--json=/tmp/x.json", "--set", "a=b"]
    assert spelled("scripts/bench", words) == (
        "scripts/bench --model 'a model.gguf' --json=x.json --set a=b"
    )


def test_this_machines_conditions_make_a_section() -> None:
    made = section(Run(title="here", command="true", conditions=machine.conditions()), TABLE)
    assert " cores, " in made
    assert "before the run" in made
