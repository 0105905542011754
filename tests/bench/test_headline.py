"""The README's table of speed: which figures of a results file it shows."""

from pathlib import Path

import pytest

from tests.bench import command, headline
from tests.bench.scenarios import SCENARIOS
from tests.readme import END, README
from tests.results import Run, Table, section

XEON = "Intel(R) Xeon(R) Processor"


def results(
    *rows: tuple[str, str],
    other: str = "llama-server: 5",
    metric: str = "output_tokens_per_s",
    title: str = f"gpufc and llama-server on {headline.MODEL}, 2 threads",
    command: str = "scripts/bench",
    **conditions: object,
) -> str:
    """A run's section; each row is a scenario and its ratio."""
    known: dict[str, object] = {
        "at": "2026-01-01T00:00:00Z", "commit": "aaa1111", "processor": XEON, "cores": 2,
        "memory_bytes": 8 * 2**30, "gpus": [],
    }  # fmt: skip
    columns = ("scenario", "metric", "first server", "other server", "ratio")
    cells = [(scenario, metric, "gpufc: 4", other, ratio) for scenario, ratio in rows]
    run = Run(title=title, command=command, conditions=known | conditions)
    return section(run, Table(columns, cells))


def shown(*texts: str) -> list[str]:
    return headline.lines(headline.figures("".join(texts), headline.processor)).splitlines()


def test_a_column_is_a_kind_of_processor_and_a_row_a_load() -> None:
    text = results(("short8", "1.05 (0.92–1.11)"), ("short1", "0.80 (0.70–0.90)"))
    epyc = results(("long1", "0.90"), processor="AMD EPYC", commit="bbb2222")
    assert shown(text, epyc) == [
        "| prompt + answer | AMD EPYC, 2 cores | Intel Xeon, 2 cores |",
        "| --- | --- | --- |",
        "| 1 stream, 16 + 80 tokens |  | 0.80 |",
        "| 8 streams, 16 + 80 tokens |  | 1.05 |",
        "| 1 stream, 1,500 + 32 tokens | 0.90 |  |",
        "| commit | bbb2222 | aaa1111 |",
    ]


def test_the_newest_figure_counts_and_one_of_an_older_commit_names_it() -> None:
    newer = results(("short1", "1.20"), at="2026-01-02T00:00:00Z", commit="ccc3333", gpus=["A, 8"])
    older = results(("short1", "0.70"), ("short8", "0.60"))
    rows = shown(newer, older)
    assert rows[2] == "| 1 stream, 16 + 80 tokens | 1.20 |"
    assert rows[3] == "| 8 streams, 16 + 80 tokens | 0.60 (aaa1111) |"
    assert rows[4] == "| commit | ccc3333 |"


@pytest.mark.parametrize(
    "changed",
    [
        {"other": "before: 5"},
        {"other": "llama-batched-bench, decoding: 5"},
        {"metric": "gap_p50_ms"},
        {"title": "gpufc and llama-server on another.gguf, 2 threads"},
        {"command": "scripts/bench --set n_threads=1"},
        {"command": "scripts/bench --set=n_threads=1"},
        {"command": "scripts/bench --quick"},
        {"commit": "aaa1111-dirty"},
        {"commit": None},
    ],
    ids=str,
)
def test_a_machine_without_runs_beside_llama_server_has_no_column(
    changed: dict[str, str],
) -> None:
    counted = results(("short1", "0.90"))
    left_out = results(("short1", "0.80"), processor="AMD EPYC", **changed)
    assert shown(counted, left_out) == shown(counted)
    assert shown(left_out)[0] == "| prompt + answer |"


def test_a_section_with_another_table_is_passed_over() -> None:
    run = Run(title=f"a run on {headline.MODEL}, 2 threads", command="c", conditions={"cores": 2})
    assert headline.figures(section(run, Table(("a", "b"), [("1", "2")])), headline.processor) == []


def test_a_host_is_the_part_of_the_machine_that_its_file_measures() -> None:
    machine = f"{XEON}, 16 cores, 252 GiB, NVIDIA H200, 143771 MiB, NVIDIA H200, 143771 MiB"
    assert str(headline.processor(machine)) == "Intel Xeon, 16 cores"
    assert str(headline.processor(f"{XEON} @ 2.80GHz, 2 cores, no GPU")) == "Intel Xeon, 2 cores"
    assert str(headline.gpu(machine)) == "NVIDIA H200"
    assert headline.gpu("AMD EPYC, 2 cores, 24 GiB, no GPU") is None
    assert headline.processor("unknown") is headline.gpu("unknown") is None


def test_processors_stand_before_gpus_and_few_cores_before_many() -> None:
    hosts = [
        headline.Host(is_gpu=True, n_cores=0, name="A"),
        headline.Host(is_gpu=False, n_cores=16, name="A"),
        headline.Host(is_gpu=False, n_cores=2, name="B"),
    ]
    assert sorted(hosts) == hosts[::-1]


def test_every_shown_scenario_is_one_of_ordinary_streams() -> None:
    assert [name for name in headline.SHOWN if not SCENARIOS[name].is_plain] == []


def test_the_command_writes_the_table_between_the_readmes_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, readme = tmp_path / "RESULTS.md", tmp_path / "README.md"
    found.write_text(results(("short1", "0.90")))
    readme.write_text(f"above\n{headline.BLOCK.begin}old\n{END}below\n")
    monkeypatch.setattr(headline, "SOURCES", ((found, headline.processor),))
    monkeypatch.setattr(headline, "README", readme)
    assert command.main(["--headline"]) == 0
    table = "".join(f"{line}\n" for line in shown(found.read_text()))
    assert readme.read_text() == f"above\n{headline.BLOCK.begin}{table}{END}below\n"


def test_the_readme_has_the_table_of_the_results_files() -> None:
    text = README.read_text()
    assert headline.BLOCK.inside(text) == headline.table()
    for path, _ in headline.SOURCES:
        assert f"({path.relative_to(README.parent)})" in text
