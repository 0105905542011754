"""The series of the fronts that share durable requests; without NATS they have no values."""

from collections.abc import Iterator

from prometheus_client import Metric

from supervisor.metrics.figures import Figures
from supervisor.metrics.series import counter, gauge

STATES = ("owner", "waiting", "alone", "fenced")

COUNTERS = {
    "cells_batches": "Messages with new tokens that NATS has taken.",
    "cells_taken_over": "Durable requests of other fronts that went on here.",
    "cells_fenced": "Times that other fronts took this front's durable requests over.",
    "cells_local": "Durable requests that began in this front only: NATS did not answer.",
}


def of_cells(figures: Figures) -> Iterator[Metric]:
    """All of them."""
    found = figures.cells
    cells = [found] if found else []
    yield gauge(
        "cells_connected",
        "1 while there is a connection to NATS.",
        [],
        [([], one["connected"]) for one in cells],
    )
    yield gauge(
        "cells_state",
        "1 for the state of the front's log, 0 for the others.",
        ["state"],
        [([state], one["state"] == state) for one in cells for state in STATES],
    )
    for name, key, text in (
        ("cells_others", "others", "Other fronts that are heard."),
        ("cells_replicated_requests", "replicated", "Durable requests here that NATS has."),
        ("cells_orphans", "orphans", "Requests of dead fronts that no front goes on with yet."),
    ):
        yield gauge(name, text, [], [([], one[key]) for one in cells])
    for name, text in COUNTERS.items():
        yield counter(name, text, [], [([], one[f"{name[6:]}_total"]) for one in cells])
