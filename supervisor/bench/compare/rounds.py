"""Which server comes when, and what all rounds say together. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from msgspec import Struct

from supervisor.bench.compare.scenarios import is_better_higher
from supervisor.bench.figures import Figures


class Row(Struct, frozen=True, kw_only=True):
    """One server in one scenario of one round."""

    scenario: str
    server: str
    round: int
    metrics: dict[str, float]
    load_average: float
    figures: Figures


class Comparison(Struct, frozen=True, kw_only=True):
    """One metric of one scenario: medians over rounds, and the ratio of the first server to each
    other one, such that more than 1 is better for the first."""

    scenario: str
    metric: str
    medians: dict[str, float]
    spreads: dict[str, tuple[float, float]]
    ratios: dict[str, float]


def order(servers: Sequence[str], n_rounds: int) -> Iterator[tuple[int, str]]:
    """A B, B A, A B, …: a drift of the machine favours nobody."""
    for number in range(n_rounds):
        turn = servers if number % 2 == 0 else list(reversed(servers))
        for server in turn:
            yield number, server


def compare(rows: Iterable[Row], scenario: str, servers: Sequence[str]) -> list[Comparison]:
    """All metrics of a scenario. `servers[0]` is ours."""
    mine = [row for row in rows if row.scenario == scenario]
    names = dict.fromkeys(name for row in mine for name in row.metrics)
    return [_compare(mine, scenario, metric, servers) for metric in names]


def _compare(rows: list[Row], scenario: str, metric: str, servers: Sequence[str]) -> Comparison:
    values = {
        server: [
            row.metrics[metric] for row in rows if row.server == server and metric in row.metrics
        ]
        for server in servers
    }
    medians = {server: median(found) for server, found in values.items() if found}
    return Comparison(
        scenario=scenario,
        metric=metric,
        medians=medians,
        spreads={server: (min(found), max(found)) for server, found in values.items() if found},
        ratios=_ratios(metric, medians, servers),
    )


def _ratios(metric: str, medians: dict[str, float], servers: Sequence[str]) -> dict[str, float]:
    ours, ratios = medians.get(servers[0]), {}
    for server in servers[1:]:
        theirs = medians.get(server)
        if ours and theirs:
            ratios[server] = ours / theirs if is_better_higher(metric) else theirs / ours
    return ratios
