"""The series of the network that the front has joined; without one they have no values."""

from collections.abc import Iterator

from prometheus_client import Metric

from supervisor.metrics.figures import Figures
from supervisor.metrics.series import counter, gauge

OUTCOMES = ("succeeded", "failed", "cancelled", "refused", "lost")


def of_network(figures: Figures) -> Iterator[Metric]:
    """All of them."""
    found = figures.network
    networks = [found] if found else []
    yield gauge(
        "network_online",
        "1 while the machine is logged in at the control server.",
        [],
        [([], one["phase"] == "online") for one in networks],
    )
    yield gauge(
        "network_last_heartbeat_timestamp_seconds",
        "Unix time of the last heartbeat; 0 before the first one.",
        [],
        [([], one["last_heartbeat_at"] or 0) for one in networks],
    )
    yield counter(
        "network_tasks",
        "Tasks of the network, by their end.",
        ["outcome"],
        [([outcome], one["tasks"][outcome]) for one in networks for outcome in OUTCOMES],
    )
    yield counter(
        "network_generation_tokens",
        "Tokens generated for tasks of the network.",
        [],
        [([], one["tasks"]["generated_tokens"]) for one in networks],
    )
    for name, key, text in (
        ("network_tasks_running", "tasks_running", "Tasks of the network that run."),
        ("network_tasks_waiting", "tasks_waiting", "Tasks of the network that wait."),
        ("network_connections", "connections", "Connections of the network's users."),
    ):
        yield gauge(name, text, [], [([], one[key]) for one in networks])
