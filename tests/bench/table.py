"""A comparison as text. Pure."""

from collections.abc import Mapping, Sequence

from tests.bench.rounds import Comparison
from tests.bench.scenarios import Scenario

NAME, CELL = 28, 24
"""Widths of the columns, in letters."""


def lines(
    comparisons: Sequence[Comparison], scenarios: Sequence[Scenario], servers: Sequence[str]
) -> list[str]:
    """The scenarios' shown metrics: medians and the first server's ratios, each with the least and
    the most of a single round. A ratio above 1 is in favour of the first server."""
    out = [_header(servers)]
    for scenario in scenarios:
        rows = {c.metric: c for c in comparisons if c.scenario == scenario.name}
        out.append(f"{scenario.name}: {scenario.says}")
        out += [_row(rows[name], servers) for name in scenario.shows if name in rows]
        out += [_row(rows[name], servers) for name in ("failed", "short") if _counts(rows, name)]
        if "server_cpu_ms_per_token" in rows:
            out.append(_row(rows["server_cpu_ms_per_token"], servers))
    return out


def _counts(rows: dict[str, Comparison], name: str) -> bool:
    return name in rows and any(value for value in rows[name].medians.values())


def _header(servers: Sequence[str]) -> str:
    ratios = [f"× {server}" for server in servers[1:]]
    return f"{'median of rounds':{NAME}}" + "".join(f"{n:>{CELL}}" for n in [*servers, *ratios])


def _row(row: Comparison, servers: Sequence[str]) -> str:
    cells = [value(row.medians, row.spreads, server) for server in servers]
    cells += [value(row.ratios, row.ratio_spreads, server) for server in servers[1:]]
    return f"{'  ' + row.metric:{NAME}}" + "".join(f"{cell:>{CELL}}" for cell in cells)


def value(
    values: Mapping[str, float], spreads: Mapping[str, tuple[float, float]], server: str
) -> str:
    """A server's value with the least and the most of a round; a dash without one."""
    if server not in values:
        return "–"
    low, high = spreads[server]
    spread = f" ({number(low)}–{number(high)})" if low < high else ""
    return number(values[server]) + spread


def number(value: float) -> str:
    """With three figures or more."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"
