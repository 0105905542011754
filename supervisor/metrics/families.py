"""gpufc's own series: names, labels, types and units, with their values from the figures."""

from collections.abc import Iterator

from prometheus_client import Metric

from supervisor.metrics.cells import of_cells
from supervisor.metrics.endpoint import Endpoint, cells_by_model
from supervisor.metrics.figures import Figures
from supervisor.metrics.machine import of_hosts, of_machine, of_models, of_workers
from supervisor.metrics.network import of_network
from supervisor.metrics.requests import of_requests
from supervisor.metrics.series import gauge


def families(figures: Figures) -> list[Metric]:
    """All series, those without a value by their name and type only."""
    return [
        *of_requests(figures),
        *of_models(figures),
        *of_workers(figures),
        *of_hosts(figures),
        *of_machine(figures),
        *of_network(figures),
        *of_cells(figures),
        *_of_endpoint(figures),
        gauge("build_info", "The version of gpufc.", ["version"], [([figures.version], 1)]),
    ]


def _of_endpoint(figures: Figures) -> Iterator[Metric]:
    """The sums that have no labels."""
    cells = cells_by_model(figures.workers)
    for name, text, value in Endpoint.of(figures.occupancies.values(), cells.values()).gauges():
        yield gauge(name, text, [], [([], value)])
