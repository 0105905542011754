"""The figures of a run: printed as they come, kept as rows for the results file."""

import os
import platform
from collections.abc import Sequence

from msgspec import Struct, field


class Report(Struct):
    """One run. A row has a measured quantity and its result. `wrong` is empty if all promises held.

    `headline` is the one row that the README shows, for the runs of `scripts/chaos --headline`.
    """

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    headline: tuple[str, str] | None = None

    def row(self, measured: str, result: object) -> None:
        """Keep a figure and print it."""
        self.rows.append((measured, str(result)))
        say(f"  {measured}: {result}")

    def head(self, measured: str, result: object) -> None:
        """Keep a figure, print it, and let it stand for the run."""
        self.row(measured, result)
        self.headline = self.rows[-1]

    def conclude(self) -> bool:
        """Print all violations. Returns whether there are none."""
        for line in self.wrong[:50]:
            say(f"  WRONG {line}")
        self.row("violations", len(self.wrong))
        say(f"  {conditions()}")
        return not self.wrong


def reporting(title: str) -> Report:
    """The report of a run that begins now; prints its title."""
    say(f"{title}; {conditions()}")
    return Report(title)


def conditions() -> str:
    """The machine and its load now."""
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
    """Print a line that is seen at once, also through a pipe."""
    print(line, flush=True)
