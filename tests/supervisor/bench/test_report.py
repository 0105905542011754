"""What people and programs get to see."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from supervisor.bench import plot, report
from supervisor.bench.client import Target
from supervisor.bench.figures import figures
from supervisor.bench.outcome import Failure
from supervisor.bench.runner import Bounds, Run
from supervisor.bench.workload import Workload
from tests.supervisor.bench.test_figures import outcome

RUN = [
    outcome(0.0, 1.0, 1.5, 3.0),
    outcome(1.0, 4.0, 4.5, turn=1),
    outcome(0.0, failure=Failure.REFUSED),
]

TABLE = """\
2 of 3 requests succeeded in 5.0 s (0.40/s)
1.0 output tokens/s, 5.0 tokens/s with prompts
20 prompt tokens, 40% of them from the server's cache; 5 output tokens
1 × refused
1 brought another number of tokens than was asked for

milliseconds                mean       p50       p90       p99       max
time to first token       2000.0    2000.0    2800.0    2980.0    3000.0
between tokens             833.3     500.0    1300.0    1480.0    1500.0
per output token           750.0     750.0     950.0     995.0    1000.0
whole request             3750.0    3750.0    3950.0    3995.0    4000.0

turn   prompt tokens    cached   first token p50       p99
   1              10         4            1000.0    1000.0
   2              10         4            3000.0    3000.0"""


def test_the_table() -> None:
    assert "\n".join(report.lines(figures(RUN))) == TABLE


def test_a_run_without_a_success_has_its_errors_and_no_table() -> None:
    first, second = report.lines(figures([outcome(0.0, failure=Failure.CUT)]))
    assert first.startswith("0 of 1 requests succeeded")
    assert second == "1 × cut off"


def test_missing_values_are_left_open_in_the_table() -> None:
    lines = report.lines(figures([outcome(0.0, 1.0)]))
    assert any(line.startswith("between tokens") and "–" in line for line in lines)


def test_the_file_holds_everything_but_the_key(tmp_path: Path) -> None:
    target = Target(url="http://h", key="secret")
    run = Run(outcomes=RUN, client_cpu_s=0.5)
    made = report.document(figures(RUN), target, Workload(seed=9), Bounds(), run)
    report.write(tmp_path / "f.json", made)
    text = (tmp_path / "f.json").read_text()
    assert "secret" not in text
    read = json.loads(text)
    assert read["workload"]["seed"] == 9
    assert read["figures"]["errors"] == {"refused": 1}
    assert [request["first_token_s"] for request in read["requests"]] == [1.0, 3.0, None]


def _texts(svg: str) -> list[str]:
    return [
        element.text or "" for element in ET.fromstring(svg).iter() if (element.text or "").strip()
    ]


def test_curves_are_drawn_for_measures_with_values() -> None:
    svg = plot.percentile_curves("a <title>", {"one": {"x": [1.0, 2.0]}, "none": {"x": []}})
    texts = _texts(svg)
    assert "a <title>" in texts
    assert {"one", "p50", "2.0 s"} <= set(texts)
    assert "none" not in texts
    assert svg.count("<polyline") == 1


def test_bars_are_as_long_as_their_ratios() -> None:
    svg = plot.ratio_bars("t", {"better": 2.0, "worse": 0.5})
    bars = [e for e in ET.fromstring(svg).iter() if e.tag.endswith("rect")]
    better, worse = (float(bar.attrib["width"]) for bar in bars)
    assert better == pytest.approx(4 * worse, rel=0.01)
    assert bars[0].attrib["fill"] != bars[1].attrib["fill"]
    assert {"2.00×", "0.50×"} <= set(_texts(svg))


def test_nothing_can_be_plotted() -> None:
    assert _texts(plot.percentile_curves("t", {})) == ["t"]
