"""The port between the fleet and the rest of the front.

`fleet.Fleet` implements one side and the listener, which is dispatch, the other. Nothing here knows
processes or sockets, so a worker may as well run on another machine.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from gpufc.facts import ModelFacts
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import (
    Detokenized,
    Embedded,
    EngineStatus,
    Finished,
    Prepared,
    Refused,
    Step,
    ToWorker,
)
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.states import WorkerState
from supervisor.routing.canary import Canary, CanaryRules

WorkerMessage = Prepared | Refused | Detokenized | Embedded | Step | Finished
"""The messages that reach a listener. The fleet handles the rest of `FromWorker` itself."""


class WorkerHandle(Protocol):
    """One ready worker process: a new one, with a new epoch, after every restart."""

    @property
    def name(self) -> WorkerName:
        """The name of its place in the fleet, which outlives it."""
        ...

    @property
    def epoch(self) -> Epoch:
        """The epoch that every message to and from it carries."""
        ...

    @property
    def model(self) -> str:
        """The name that its model is served under."""
        ...

    @property
    def line(self) -> int:
        """The number of its line of processes, which follow each other by restarts with the same
        model and settings. A worker that takes over by a swap has another line."""
        ...

    @property
    def facts(self) -> ModelFacts:
        """The facts of the loaded model."""
        ...

    @property
    def machine(self) -> str | None:
        """Its machine's name; None for the front's own."""
        ...

    def drained(self) -> None:
        """Say that no stream needs this worker's line any more: it may be ended.

        Only after `worker_draining`; may also be called after the worker was lost.
        """
        ...

    def explain_deaths(self, count: int) -> None:
        """Say that a convicted request caused the last `count` deaths of this worker's line: they
        count for no limit."""
        ...

    def send(self, message: ToWorker) -> None:
        """Queue a message. Never blocks. Raises `LinkError` for a message over the size limit.

        A dead or hung worker raises nothing here: `worker_lost` reports it."""
        ...


class FleetListener(Protocol):
    """Told about workers, in the event loop. Must not block; must not raise.

    For one handle the order is `worker_ready`, any number of `worker_message`, with at most one
    `worker_draining` among them, `worker_lost`. The last one comes exactly once, as soon as the
    fleet gives the worker up. Its process may still be ending then, but its messages are dropped.
    """

    def worker_ready(self, worker: WorkerHandle) -> None:
        """A worker has loaded its model and takes requests."""
        ...

    def canary_began(self, worker: WorkerHandle, canary: Canary) -> None:
        """This worker, of which `worker_ready` follows, serves another model to a share of the new
        requests. The listener reports their ends to `canary`. It is over when a worker of either
        model drains."""
        ...

    def worker_message(self, worker: WorkerHandle, message: WorkerMessage) -> None:
        """A message of a ready worker. Its epoch has been checked."""
        ...

    def worker_draining(self, worker: WorkerHandle) -> None:
        """Another worker takes over with another model, and this one gets nothing new.

        Streams that have begun on its fingerprint end on it, or on the next worker of its line if
        it is lost. Answered by `worker.drained()`, at once or later."""
        ...

    def worker_lost(self, worker: WorkerHandle, reason: ExitReason) -> None:
        """A ready worker is gone. Its sequences have to be continued elsewhere or ended."""
        ...

    def engine_proven(self, worker: WorkerHandle) -> None:
        """A worker has just computed its trial, eight tokens of a fixed prompt.

        It may be one that the listener does not hear, such as a hot spare."""
        ...

    def engine_renewed(self, model: str) -> None:
        """An operator has restarted the workers of this model, or given it another file."""
        ...

    def condition_changed(self) -> None:
        """The state, the detail or the loading progress of a worker has changed."""
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
    """A readiness. `retry_after_s` estimates when a retry makes sense; 0 with `ok`."""

    status: ConditionStatus
    detail: str
    retry_after_s: float


class WorkerStatus(Struct, frozen=True, kw_only=True):
    """The fleet's part of one row of `/stats`' `workers`.

    Times ending in `_at` are unix seconds. `facts` are None until the model is loaded, `engine` is
    the last record that a heartbeat brought. `pid` is one of `machine`, which is None for the
    front's own.
    """

    name: WorkerName
    machine: str | None = None
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
    within: tuple[str, ...] = ()
    """See `ModelChange`; empty for a model that the operator has named."""


class SpareState(StrEnum):
    """The progress of a spare process."""

    STARTING = "starting"
    WARM = "warm"
    LOADING = "loading"
    HOT = "hot"


class SpareStatus(Struct, frozen=True, kw_only=True):
    """One row of `/stats`' `spares`."""

    pid: int
    state: SpareState
    rss_bytes: int


class HostStatus(Struct, frozen=True, kw_only=True):
    """One row of `/stats`' `hosts`: a machine that may run workers. `heard_at` is unix seconds."""

    machine: str
    state: str
    detail: str = ""
    workers: tuple[WorkerName, ...] = ()
    max_workers: int = 0
    cores: int = 0
    memory_bytes: int = 0
    devices: tuple[str, ...] = ()
    version: str = ""
    heard_at: float | None = None
    n_losses: int = 0


class ReplacementStage(StrEnum):
    """The progress of a worker's replacement. The words of the terminal and of `/admin`."""

    LOADING = "loading"
    TRYING = "trying"
    CANARY = "canary"
    """The new model gets a share of the requests, and its ends are compared."""
    DRAINING = "draining"
    """Memory does not suffice for both: the old worker's streams end before the new one loads."""
    STOPPING = "stopping"
    """Memory does not suffice for both: the old worker ends, its streams wait for the new one."""
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
    """An `OnReplacement` that shows nothing."""


class ModelChange(Struct, frozen=True, kw_only=True):
    """The changes of a swap; None leaves a setting as it is."""

    model_path: str
    n_ctx: int | None = None
    n_gpu_layers: int | None = None
    canary: CanaryRules | None = None
    """With rules, a canary comes before the takeover."""
    within: tuple[str, ...] = ()
    """The folders and files that the model's files must lie in, by real paths; empty for any. Each
    load looks anew: a link may lead elsewhere by then."""
