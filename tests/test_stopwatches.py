"""No test has a stopwatch: on a loaded machine it fails for no fault. `tests/growth.py` counts."""

import re

import pytest

from tests.structure import ROOT

MEASURING = {"bench", "chaos", "clients", "fuzz"}
"""Folders of programs that measure. Their figures go into tables."""
MEASURED = {"tests/growth.py", "tests/supervisor/answers/parsers/cost.py"}

CLOCK = re.compile(r"\btime\.(?:thread_time|process_time|perf_counter)(?:_ns)?\(")
LIMIT = re.compile(
    r"(?:asyncio\.(?:timeout\(|wait_for\([^\n]*, )"
    r"|\buntil\([^\n]*, timeout_s="
    r"|\bprocess\.wait\()(\d+(?:\.\d+)?)\)"
)
HANG_S = 60.0
"""A limit on a wait guards against a hang: it is this long at least, and claims nothing."""

SOURCES = sorted(
    path
    for path in (ROOT / "tests").rglob("*.py")
    if path.relative_to(ROOT).parts[1] not in MEASURING
    and str(path.relative_to(ROOT)) not in MEASURED
)


def found_in(text: str) -> list[str]:
    """The stopwatches in a source text."""
    limits = [match for match in LIMIT.finditer(text) if float(match[1]) < HANG_S]
    return [match[0] for match in (*CLOCK.finditer(text), *limits)]


def test_no_test_measures_time_or_hurries_a_wait() -> None:
    assert SOURCES
    found = {path.name: here for path in SOURCES if (here := found_in(path.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("began = time." + "thread_time()", 1),
        ("async with asyncio." + "timeout(5):", 1),
        ("await asyncio." + "wait_for(task, 5.0)", 1),
        ("await until(lambda: done, " + "timeout_s=5.0)", 1),
        ("one.process." + "wait(10)", 1),
        ("async with asyncio." + "timeout(60):", 0),
        ("await asyncio." + "wait_for(done(1), 120)", 0),
        ("until = time.monotonic() + 60", 0),
    ],
)
def test_a_stopwatch_is_found(text: str, n: int) -> None:
    assert len(found_in(text)) == n
