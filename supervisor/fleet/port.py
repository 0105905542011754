"""What the fleet offers to the rest of the front, and what it asks of it.

Nothing here knows processes, sockets or pids' files: `fleet.Fleet` implements the one side,
dispatch's client the other.
"""

from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import (
    Detokenized,
    EngineDevice,
    Finished,
    Prepared,
    Ready,
    Refused,
    Step,
    ToWorker,
)
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.lifecycle import WorkerState

WorkerMessage = Prepared | Refused | Detokenized | Step | Finished
"""What reaches a listener. The rest of `FromWorker` is the fleet's own business."""


class WorkerHandle(Protocol):
    """One ready worker process: a new one, with a new epoch, after every restart."""

    @property
    def name(self) -> WorkerName:
        """Its place in the fleet, which outlives it."""
        ...

    @property
    def epoch(self) -> Epoch:
        """What every message to and from it carries."""
        ...

    @property
    def model(self) -> str:
        """The name that its model is served under."""
        ...

    @property
    def ready(self) -> Ready:
        """What was really obtained when the model was loaded."""
        ...

    def send(self, message: ToWorker) -> None:
        """Queue a message. Never blocks, and never raises for a dead or deaf worker: its loss is
        reported by `worker_lost`. Raises `LinkError` only for a message over the size limit."""
        ...


class FleetListener(Protocol):
    """Told about workers, in the event loop. Must not block; must not raise.

    For one handle the order is always `worker_ready`, any number of `worker_message`,
    `worker_lost`. The last one comes exactly once, as soon as the fleet gives the worker up: its
    process may then still be ending, but nothing that it says reaches anybody any more.
    """

    def worker_ready(self, worker: WorkerHandle) -> None:
        """A worker has loaded its model and takes requests."""
        ...

    def worker_message(self, worker: WorkerHandle, message: WorkerMessage) -> None:
        """Something that a ready worker said. Its epoch has been checked."""
        ...

    def worker_lost(self, worker: WorkerHandle, reason: ExitReason) -> None:
        """A ready worker is gone. What it ran has to be continued elsewhere or ended."""
        ...

    def condition_changed(self) -> None:
        """The state, the detail or the loading of a worker is not what it was."""
        ...


class ConditionStatus(StrEnum):
    """Whether a token could be produced now, and if not, why. The words of `/readyz`."""

    OK = "ok"
    LOADING = "loading"
    RESTARTING = "restarting"
    HUNG = "hung"
    FAILED = "failed"
    DRAINING = "draining"


class Condition(Struct, frozen=True):
    """`retry_after_s` is an estimate of when asking again makes sense; 0 with `ok`."""

    status: ConditionStatus
    detail: str
    retry_after_s: float


class WorkerStatus(Struct, frozen=True, kw_only=True):
    """One row of `/stats`' `workers`, as far as the fleet knows it.

    Times ending in `_at` are unix seconds. What only a loaded model tells is zero or empty before.
    """

    name: WorkerName
    pid: int | None
    epoch: Epoch
    state: WorkerState
    detail: str
    model: str
    model_path: str | None
    fingerprint: str | None
    restarts: int
    last_exit: ExitReason | None
    n_ctx: int
    kv_cells_total: int
    kv_cells_used: int
    n_gpu_layers: int
    sequences_running: int
    sequences_waiting: int
    rss_bytes: int
    loading_fraction: float
    loaded_in_s: float | None
    last_step_at: float | None
    last_heartbeat_at: float | None
    devices: tuple[EngineDevice, ...]
    system_info: str


class SpareState(StrEnum):
    """How far a process is that waits to take a worker's place."""

    STARTING = "starting"
    WARM = "warm"
    LOADING = "loading"
    HOT = "hot"


class SpareStatus(Struct, frozen=True, kw_only=True):
    """One row of `/stats`' `spares`."""

    pid: int
    state: SpareState
    rss_bytes: int
