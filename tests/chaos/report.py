"""Figures for people: what was run, under which conditions, and what came of it."""

import os
import platform
from collections.abc import Sequence


def conditions() -> str:
    """The machine and what else it has to do now."""
    one, five, _ = os.getloadavg()
    cores = len(os.sched_getaffinity(0))
    python = platform.python_version()
    return f"{cores} cores, load {one:.1f} (1 min) {five:.1f} (5 min), Python {python}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed; not a number where there are none."""
    ordered = sorted(values)
    return ordered[round((len(ordered) - 1) * share)] if ordered else float("nan")


def spread(values: Sequence[float], unit: str = "s") -> str:
    """p50, p99 and the longest, with the number of values."""
    if not values:
        return "none"
    return (
        f"p50 {percentile(values, 0.5):.3f} {unit}, p99 {percentile(values, 0.99):.3f} {unit}, "
        f"longest {max(values):.3f} {unit} (n={len(values)})"
    )


def over(name: str, values: Sequence[float], limit_s: float, share: float = 1.0) -> list[str]:
    """A line if the value that `share` of all do not exceed is over a limit."""
    if not values:
        return [f"{name}: nothing was measured"]
    value = percentile(values, share)
    if value <= limit_s:
        return []
    return [f"{name}: {value:.3f} s at the {share:.0%} point, at most {limit_s:g} s"]


def say(line: str = "") -> None:
    """A line that is seen at once, also through a pipe."""
    print(line, flush=True)
