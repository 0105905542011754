"""The status of a front that is logged in at a control server."""

from typing import Any

from msgspec import structs

from supervisor.fabric.client import NetworkStatus
from supervisor.fabric.session import Phase
from supervisor.fabric.tasks import TaskCounts

_ONLINE = NetworkStatus(
    server="control.example:17000",
    client_id="0011…eeff",
    phase=Phase.ONLINE,
    detail="",
    models=("mine", "other"),
    logged_in_at=1.0,
    last_heartbeat_at=2.0,
    tasks_running=3,
    tasks_waiting=0,
    tasks=TaskCounts(succeeded=4, generated_tokens=5),
    connections=6,
    downloaded=("a.gguf",),
)


def network_status(**fields: Any) -> NetworkStatus:
    """One with two models, `mine` and `other`."""
    return structs.replace(_ONLINE, **fields)
