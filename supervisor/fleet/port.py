"""What the fleet offers to the rest of the front, and what it asks of it.

Nothing here knows processes, sockets or pids' files: `fleet.Fleet` implements the one side,
dispatch's client the other.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from gpufc.facts import ModelFacts
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import (
    Detokenized,
    EngineStatus,
    Finished,
    Prepared,
    Refused,
    Step,
    ToWorker,
)
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.states import WorkerState

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
    def line(self) -> int:
        """Processes that follow each other by restarts, with the same model and settings, have
        one line. What takes over from them by a swap has another."""
        ...

    @property
    def facts(self) -> ModelFacts:
        """What was obtained when the model was loaded."""
        ...

    def drained(self) -> None:
        """Nothing that has begun needs this worker's line any more: it may be ended.

        Only after `worker_draining`; may also be called when the worker has been lost since.
        """
        ...

    def explain_deaths(self, count: int) -> None:
        """The last `count` deaths of this worker's line were a request's doing, which has been
        convicted: they say nothing about the model, and count for no limit."""
        ...

    def send(self, message: ToWorker) -> None:
        """Queue a message. Never blocks, and never raises for a dead or deaf worker: its loss is
        reported by `worker_lost`. Raises `LinkError` only for a message over the size limit."""
        ...


class FleetListener(Protocol):
    """Told about workers, in the event loop. Must not block; must not raise.

    For one handle the order is always `worker_ready`, any number of `worker_message`, with at most
    one `worker_draining` among them, `worker_lost`. The last one comes exactly once, as soon as the
    fleet gives the worker up: its process may then still be ending, but nothing that it says
    reaches anybody any more.
    """

    def worker_ready(self, worker: WorkerHandle) -> None:
        """A worker has loaded its model and takes requests."""
        ...

    def worker_message(self, worker: WorkerHandle, message: WorkerMessage) -> None:
        """Something that a ready worker said. Its epoch has been checked."""
        ...

    def worker_draining(self, worker: WorkerHandle) -> None:
        """Another worker takes over, with another model: this one gets nothing new, but what has
        begun on its fingerprint ends on it, also on the next worker of its line if it is lost.
        Answered by `worker.drained()`, at once or later."""
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

    Times ending in `_at` are unix seconds. `facts` are None until the model is loaded, `engine` is
    the last record that a heartbeat brought.
    """

    name: WorkerName
    pid: int | None
    epoch: Epoch
    state: WorkerState
    detail: str
    model: str
    model_path: str | None
    restarts: int
    last_exit: ExitReason | None
    rss_bytes: int
    loading_fraction: float
    loaded_in_s: float | None
    last_step_at: float | None
    last_heartbeat_at: float | None
    facts: ModelFacts | None
    engine: EngineStatus | None


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


class ReplacementStage(StrEnum):
    """How far a worker's replacement is. The words of the terminal and of `/admin`."""

    LOADING = "loading"
    TRYING = "trying"
    DRAINING = "draining"
    """There is not room for both: the old worker's streams end on it before the new one loads."""
    STOPPING = "stopping"
    """There is not room for both: the old worker ends, its streams wait for the new one."""
    ROLLING_BACK = "rolling_back"
    READY = "ready"


class Replacement(Struct, frozen=True, kw_only=True):
    """One line of progress of a restart or a swap. `fraction` is of the loading, 0 to 1."""

    worker: WorkerName
    stage: ReplacementStage
    detail: str = ""
    fraction: float = 0.0
    pid: int | None = None
    epoch: Epoch | None = None


OnReplacement = Callable[[Replacement], None]


def not_followed(progress: Replacement) -> None:
    """An `OnReplacement` for a replacement whose progress is not shown."""


class ModelChange(Struct, frozen=True, kw_only=True):
    """What a swap changes; None leaves it as it is."""

    model_path: str
    n_ctx: int | None = None
    n_gpu_layers: int | None = None
