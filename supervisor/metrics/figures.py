"""The figures that the series are made from, as the front's parts report them."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from supervisor.devices.snapshot import Snapshot
from supervisor.dispatch.dispatcher import Occupancy
from supervisor.dispatch.ledger import ModelTotals
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.model_state import ModelState
from supervisor.fleet.port import HostStatus, SpareStatus, WorkerStatus


class AdapterUsage(Struct, frozen=True):
    """The names of one model's LoRA adapters: loaded, of running and of waiting sequences."""

    loaded: tuple[str, ...]
    running: frozenset[str]
    waiting: frozenset[str]


class Figures(Struct, frozen=True, kw_only=True):
    """All figures at one moment; mappings are by model.

    `totals` and `occupancies` have every served model. `restarts` count replacements of engines by
    the end of the process before. `at` is unix time in seconds. `network` is `/stats`' document of
    the network client, if there is one. `hosts` are None without a cluster. `cells` is
    `/stats`' document of the fronts that share durable requests, if there are any.
    """

    version: str
    at: float
    totals: Mapping[str, ModelTotals]
    occupancies: Mapping[str, Occupancy]
    adapters: Mapping[str, AdapterUsage]
    workers: Sequence[WorkerStatus]
    spares: Sequence[SpareStatus]
    restarts: Mapping[Reason, int]
    machine: Snapshot | None
    front_rss_bytes: int
    network: Mapping[str, Any] | None = None
    models: Sequence[ModelState] = ()
    hosts: Sequence[HostStatus] | None = None
    cells: Mapping[str, Any] | None = None
