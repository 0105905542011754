"""A comparison as text. Pure."""

from collections.abc import Sequence

from supervisor.bench.compare.rounds import Comparison
from supervisor.bench.compare.scenarios import Scenario


def lines(
    comparisons: Sequence[Comparison], scenarios: Sequence[Scenario], servers: Sequence[str]
) -> list[str]:
    """The metrics that scenarios show: medians, and our ratio to the others (more is better), each
    with the least and the most of a single round."""
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
    return f"{'median of rounds':28}" + "".join(f"{name:>22}" for name in [*servers, *ratios])


def _row(row: Comparison, servers: Sequence[str]) -> str:
    cells = [_value(row, server) for server in servers]
    cells += [_ratio(row, server) for server in servers[1:]]
    return f"  {row.metric:26}" + "".join(f"{cell:>22}" for cell in cells)


def _ratio(row: Comparison, server: str) -> str:
    if server not in row.ratios:
        return "–"
    low, high = row.ratio_spreads[server]
    return f"{row.ratios[server]:.2f} ({low:.2f}–{high:.2f})"


def _value(row: Comparison, server: str) -> str:
    if server not in row.medians:
        return "–"
    low, high = row.spreads[server]
    digits = 2 if abs(row.medians[server]) < 10 else 1
    return f"{row.medians[server]:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
