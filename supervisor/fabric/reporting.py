"""What the machine says of itself: login, heartbeat, and the models that it serves. Pure."""

from collections.abc import Iterable

from supervisor.devices.snapshot import Host, Snapshot
from supervisor.fabric import messages as m
from supervisor.fabric.devices import report
from supervisor.fabric.identity import ClientId

VERSION = 1
"""Of the login, the only one so far."""

NOTHING = Snapshot(host=Host(), devices=(), sources=())


def login(client: ClientId, snapshot: Snapshot | None, *, auto_models: bool = False) -> m.Login:
    """The first message. `auto_models` asks the server to name models to serve."""
    found = report(snapshot or NOTHING)
    return m.Login(
        client_id=client.raw,
        version=VERSION,
        os_type=found.devices.os_type,
        auto_models=auto_models,
        system_info=found.system,
        device_memtotal_gb=found.devices.memtotal_gb,
        device_total_tflops=found.devices.total_tflops,
        devices_info=[found.devices],
    )


def heartbeat(client: ClientId, snapshot: Snapshot | None) -> m.Heartbeat:
    """The sign of life."""
    found = report(snapshot or NOTHING)
    return m.Heartbeat(
        client_id=client.raw,
        system_info=found.system,
        device_count=found.devices.num,
        device_memtotal_gb=found.devices.memtotal_gb,
        device_total_tflops=found.devices.total_tflops,
        devices_info=[found.devices],
    )


def model_status(
    client: ClientId, models: Iterable[str], created: int, wishes: Snapshot | None = None
) -> m.ModelStatus:
    """The models that tasks may ask for. `created` is unix time in seconds. The server answers
    with models for the machine of `wishes`, if it is given."""
    listed = [m.Model(name, "model", created, "gpufc") for name in models]
    return m.ModelStatus(client.raw, listed, [report(wishes).devices] if wishes else [])
