"""The two plain kinds of series: counters and gauges, with gpufc's prefix."""

from collections.abc import Iterable, Sequence

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

Labelled = Iterable[tuple[Sequence[str], float]]
"""Label values, each with the series' value."""


def counter(name: str, text: str, labels: Sequence[str], values: Labelled) -> Metric:
    """A counter; its series get `_total` behind the name."""
    family = CounterMetricFamily(f"gpufc_{name}", text, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


def gauge(name: str, text: str, labels: Sequence[str], values: Labelled) -> Metric:
    """A gauge."""
    family = GaugeMetricFamily(f"gpufc_{name}", text, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family
