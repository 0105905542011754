"""The parts of a front that its configuration may leave out. What is left out is not imported."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from gpufc.config import Config
from supervisor.access.ring import KeyRing
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.durable_store import DurableRequests
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.port import FleetListener
from supervisor.http.edge.context import Services
from supervisor.http.edge.server import FrontRunner

if TYPE_CHECKING:
    from supervisor.cells.cells import Cells
    from supervisor.fabric.client import NetworkClient
    from supervisor.plugins.plugins import Plugins
    from supervisor.remote.cluster import Cluster
    from supervisor.tracing.export import Tracer


def network_client(config: Config, services: Services, http: FrontRunner) -> "NetworkClient | None":
    """The client of the network that `server_addr` names; None without one, and offline."""
    if config.fabric.server_addr is None or config.server.offline:
        return None
    from supervisor.fabric.client import NetworkClient  # a front without a network imports nothing

    return NetworkClient(config, services, http)


def cluster(config: Config, logs: Path) -> "Cluster | None":
    """The machines that may join; None without an address for them. Raises `ConfigError`."""
    if config.cluster.cluster_listen is None:
        return None
    from supervisor.remote.cluster import Cluster

    made = Cluster(config.cluster)
    if config.cluster.cluster is not None:
        from supervisor.remote.placing import Placing  # a front without Ray starts no placer

        made.placing = Placing(config.cluster, made, logs / "placer.log")
    return made


def cells(
    config: Config,
    dispatcher: Dispatcher,
    fleet: Fleet,
    durable: DurableRequests,
    keys: KeyRing | None,
) -> "Cells | None":
    """The other fronts that durable requests go on in; None without a NATS server, and offline.
    Raises `ConfigError`."""
    if config.cells.cells_nats is None or config.server.offline:
        return None
    from supervisor.cells.cells import Cells
    from supervisor.cells.nats_store import NatsStore
    from supervisor.cells.reviving import no_account

    store = NatsStore(config.cells)
    account_of = no_account if keys is None else keys.account
    return Cells(config.cells, config.limits, store, dispatcher, fleet, durable, account_of)


def tracer(endpoint: str | None) -> "Tracer | None":
    """What sends traces to the endpoint; None without one. Raises `ConfigError` without the
    library."""
    if endpoint is None:
        return None
    from supervisor.tracing.export import Tracer  # a front without traces does not load the library

    return Tracer(endpoint)


def key_ring(config: Config) -> KeyRing | None:
    """The keys of `keys_file`; None without that file."""
    keys_file = config.access.keys_file
    return KeyRing(Path(keys_file)) if keys_file is not None else None


def plugins(
    config: Config, logs: Path, dispatcher: Dispatcher
) -> "tuple[Plugins | None, FleetListener]":
    """The configured plugins, None without any; and dispatch behind those that hear of workers.
    Raises `ConfigError`."""
    if not config.plugins.plugins:
        return None, dispatcher
    from supervisor.plugins.listener import PluggedListener
    from supervisor.plugins.plugins import Plugins

    made = Plugins(config, logs, dispatcher)
    return made, PluggedListener(dispatcher, made)


def forbid_connections() -> None:
    """Offline mode, for this process and its loop."""
    from supervisor import offline

    offline.forbid(asyncio.get_running_loop())
