"""How figures get from a run to the results file and to the README."""

from pathlib import Path

import pytest

from tests.chaos import __main__ as command
from tests.chaos import headline, poison
from tests.chaos.options import parse
from tests.chaos.report import Report
from tests.readme import END

README = f"above\n{headline.BLOCK.begin}an old row\n{END}below\n"


def test_a_report_keeps_its_rows_and_says_whether_all_held(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report("a run")
    report.row("streams", 3)
    report.head("lost", "0 of 3")
    assert report.conclude()
    assert report.rows == [("streams", "3"), ("lost", "0 of 3"), ("violations", "0")]
    assert report.headline == ("lost", "0 of 3")
    report.wrong.append("one was lost")
    assert not report.conclude()
    assert "WRONG one was lost" in capsys.readouterr().out


def test_headline_rows_replace_those_between_the_marks() -> None:
    written = headline.replaced(README, [("lost", "0 of 3"), ("ready", "1 s")])
    assert written.startswith("above\n")
    assert written.endswith("below\n")
    assert headline.figures(written) == ["| lost | 0 of 3 |", "| ready | 1 s |"]
    assert headline.replaced(written, [("lost", "0 of 3"), ("ready", "1 s")]) == written


def test_a_readme_without_marks_is_not_written() -> None:
    with pytest.raises(ValueError, match="marks"):
        headline.replaced("nothing\n", [("lost", "0 of 3")])


@pytest.mark.parametrize("line", headline.RUNS)
def test_each_headline_run_is_one_run_of_the_command(line: str) -> None:
    assert len(command._runs(parse([*line.split(), *headline.SEED.split()]))) == 1


def test_headline_runs_begin_the_results_file_anew_and_fill_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(n_rounds: int, seed: int) -> Report:
        report = Report(f"poison, seed {seed}")
        report.head(f"convicted in {n_rounds} rounds", "all")
        return report

    readme, results = tmp_path / "README.md", tmp_path / "RESULTS.md"
    readme.write_text(README)
    results.write_text("of another commit\n")
    monkeypatch.setattr(poison, "run", run)
    monkeypatch.setattr(headline, "RUNS", ("--poison 2", "--poison 3"))
    monkeypatch.setattr(headline, "README", readme)
    monkeypatch.setattr(headline, "RESULTS", results)
    assert command.main(["--headline"]) == 0
    figures = headline.figures(readme.read_text())
    assert figures == ["| convicted in 2 rounds | all |", "| convicted in 3 rounds | all |"]
    written = results.read_text().splitlines()
    assert [figure for figure in figures if figure not in written] == []
    assert "of another commit" not in written
    assert "- command: `scripts/chaos --poison 3 --seed 1`" in written


def test_the_results_file_gets_the_seed_that_was_thrown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(n_rounds: int, seed: int) -> Report:
        report = Report(f"poison, seed {seed}")
        report.row("convicted", n_rounds)
        return report

    monkeypatch.setattr(poison, "run", run)
    path = tmp_path / "R.md"
    arguments = ["--poison", "2", "--results", str(path)]
    assert command.main(arguments) == 0
    text = path.read_text()
    (title,) = [line for line in text.splitlines() if line.startswith("## ")]
    seed = title.partition("seed ")[2].partition(",")[0]
    assert f"- command: `scripts/chaos --poison 2 --results R.md --seed {seed}`" in text
    assert "| convicted | 2 |\n| violations | 0 |\n" in text
