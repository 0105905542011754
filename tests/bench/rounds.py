"""The order of servers in rounds, and the comparison over all rounds. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from msgspec import Struct

from supervisor.bench.figures import Figures
from tests.bench.scenarios import is_better_higher


class Row(Struct, frozen=True, kw_only=True):
    """The measurement of one server in one scenario of one round."""

    scenario: str
    server: str
    round: int
    metrics: dict[str, float]
    load_average: float
    figures: Figures


class Comparison(Struct, frozen=True, kw_only=True):
    """One metric of one scenario: medians over rounds, and the ratio of the first server's median
    to each other one's. A ratio above 1 is in favour of the first. Spreads are the least and the
    most of single rounds; a ratio's spread pairs both servers of a round."""

    scenario: str
    metric: str
    medians: dict[str, float]
    spreads: dict[str, tuple[float, float]]
    ratios: dict[str, float]
    ratio_spreads: dict[str, tuple[float, float]]


def order(servers: Sequence[str], n_rounds: int) -> Iterator[tuple[int, str]]:
    """Yield A B, B A, A B, …: a drift of the machine favours neither server."""
    for number in range(n_rounds):
        turn = servers if number % 2 == 0 else list(reversed(servers))
        for server in turn:
            yield number, server


def compare(rows: Iterable[Row], scenario: str, servers: Sequence[str]) -> list[Comparison]:
    """Compare all metrics of a scenario. `servers[0]` is ours."""
    mine = [row for row in rows if row.scenario == scenario]
    names = dict.fromkeys(name for row in mine for name in row.metrics)
    return [_compare(mine, scenario, metric, servers) for metric in names]


def _compare(rows: list[Row], scenario: str, metric: str, servers: Sequence[str]) -> Comparison:
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        if metric in row.metrics:
            values.setdefault(row.server, {})[row.round] = row.metrics[metric]
    medians = {server: median(found.values()) for server, found in values.items()}
    ratios, ratio_spreads = {}, {}
    for other in servers[1:]:
        ratio = _ratio(metric, medians.get(servers[0]), medians.get(other))
        if ratio is not None:
            ratios[other] = ratio
            ratio_spreads[other] = _ratio_spread(metric, values[servers[0]], values[other])
    return Comparison(
        scenario=scenario,
        metric=metric,
        medians=medians,
        spreads={s: (min(found.values()), max(found.values())) for s, found in values.items()},
        ratios=ratios,
        ratio_spreads=ratio_spreads,
    )


def _ratio_spread(
    metric: str, ours: dict[int, float], theirs: dict[int, float]
) -> tuple[float, float]:
    """The spread over rounds that both servers have; zeros if there is none."""
    found = [_ratio(metric, ours.get(number), value) for number, value in theirs.items()]
    known = [ratio for ratio in found if ratio is not None]
    return min(known, default=0.0), max(known, default=0.0)


def _ratio(metric: str, ours: float | None, theirs: float | None) -> float | None:
    """The ratio; None if a value is missing or zero, and for shares, of which a ratio means
    nothing."""
    if not ours or not theirs or metric.endswith("_share"):
        return None
    return ours / theirs if is_better_higher(metric) else theirs / ours
