"""The text of a scrape, in Prometheus' format.

OpenMetrics is not offered: the library's encoder for it turns the colon of `vllm:` into `_`.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from supervisor.metrics.families import families
from supervisor.metrics.figures import Figures
from supervisor.metrics.vllm import repeated


class _Collected(Collector):
    """Series that have been made already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def exposition(figures: Figures) -> bytes:
    """The text."""
    ours = families(figures)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([*ours, *repeated(ours, figures)]))
    return generate_latest(registry)
