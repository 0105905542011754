"""All data that the page gets: one struct for each kind of event of its stream.

`feed.py` sends them under the names in `EVENTS`; `static/js/store.js` reads them. Times ending in
`_at` are unix seconds. Rounding keeps a message small: nothing here is for computing.
"""

from msgspec import Struct

from gpufc.ids import Epoch, WorkerName
from supervisor.devices.history import Recent
from supervisor.devices.snapshot import Device, Host, Source
from supervisor.dispatch.request import Scope
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.model_state import ModelPhase
from supervisor.fleet.port import HostStatus, SpareStatus
from supervisor.fleet.states import WorkerState


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of everything that goes to the page. The page knows the defaults."""


class Spread(Message, frozen=True):
    """Two percentiles in seconds; None without a measurement."""

    p50: float | None = None
    p99: float | None = None


class Point(Message, frozen=True):
    """The figures that are drawn over time. Totals never go down: the page makes rates of them."""

    at: float
    generated: int = 0
    prompt: int = 0
    cached: int = 0
    running: int = 0
    waiting: int = 0
    first_token: Spread = Spread()
    between_tokens: Spread = Spread()
    kv_used: int = 0
    kv_cells: int = 0
    cpu: float = 0.0
    memory: float = 0.0
    """The used part of the host's memory, 0 to 1."""
    devices: tuple[tuple[float | None, float | None], ...] = ()
    """Of each accelerator the busy part of the time and the used part of the memory."""


class ModelRow(Message, frozen=True):
    """One served name. `memory_bytes` is what it takes, or is expected to take, of any memory."""

    name: str
    state: ModelPhase
    detail: str = ""
    path: str | None = None
    architecture: str = ""
    n_params: int = 0
    size_bytes: int = 0
    memory_bytes: int = 0
    n_ctx: int = 0
    loading: float = 0.0
    running: int = 0
    waiting: int = 0
    is_pinned: bool = False
    expires_in_s: float | None = None
    tokens_per_second: float = 0.0
    generates: bool = True
    takes_chats: bool = True
    adapters: tuple[str, ...] = ()


class WorkerRow(Message, frozen=True):
    """One worker."""

    name: WorkerName
    model: str
    state: WorkerState
    epoch: Epoch
    detail: str = ""
    pid: int | None = None
    restarts: int = 0
    last_exit: ExitReason | None = None
    loading: float = 0.0
    loaded_in_s: float | None = None
    rss_bytes: int = 0
    running: int = 0
    waiting: int = 0
    kv_used: int = 0
    kv_cells: int = 0
    tokens_per_second: float = 0.0
    n_gpu_layers: int = 0
    n_layers: int = 0
    devices: tuple[str, ...] = ()
    machine: str | None = None


class RequestRow(Message, frozen=True):
    """One request. A prompt or an answer is never shown: they are other clients'."""

    id: str
    model: str
    stage: str
    submitted_at: float
    worker: WorkerName | None = None
    n_sequences: int = 1
    n_prompt: int = 0
    n_cached: int = 0
    n_generated: int = 0
    first_token_at: float | None = None
    n_replays: int = 0
    is_paused: bool = False
    ended_at: float | None = None
    outcome: str = ""


class Totals(Message, frozen=True):
    """The front's counters since it began, replays of a whole service's life included."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    rejected: int = 0
    replayed: int = 0
    lost: int = 0
    generated: int = 0
    prompt: int = 0
    cached: int = 0
    recomputed: int = 0


class AlarmRow(Message, frozen=True):
    """A state that an operator should look at. `is_grave`: requests are not served for it."""

    subject: str
    text: str
    is_grave: bool = False
    since: float | None = None


class NetworkTasks(Message, frozen=True):
    """What became of the network's tasks since the front began."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    lost: int = 0
    generated_tokens: int = 0


class NetworkRow(Message, frozen=True):
    """The session with a GPUFabric control server. `client_id` is what may be shown of it."""

    server: str
    client_id: str
    phase: str
    detail: str = ""
    models: tuple[str, ...] = ()
    logged_in_at: float | None = None
    last_heartbeat_at: float | None = None
    tasks_running: int = 0
    tasks_waiting: int = 0
    connections: int = 0
    tasks: NetworkTasks = NetworkTasks()


class Tick(Message, frozen=True):
    """The picture of one second. `ended` are the requests that have ended since the tick before."""

    point: Point
    status: str
    detail: str = ""
    totals: Totals = Totals()
    resume_gap: Spread = Spread()
    request: Spread = Spread()
    models: tuple[ModelRow, ...] = ()
    workers: tuple[WorkerRow, ...] = ()
    spares: tuple[SpareStatus, ...] = ()
    requests: tuple[RequestRow, ...] = ()
    n_requests: int = 0
    ended: tuple[RequestRow, ...] = ()
    host: Host = Host()
    devices: tuple[Device, ...] = ()
    sources: tuple[Source, ...] = ()
    alarms: tuple[AlarmRow, ...] = ()
    front_rss_bytes: int = 0
    hosts: tuple[HostStatus, ...] = ()
    network: NetworkRow | None = None


class PauseRow(Message, frozen=True):
    """One stream's pause."""

    request: str
    began_at: float
    ended_at: float


class DeathRow(Message, frozen=True):
    """One end of a worker. Without the streams' figures it was recorded by an earlier front, or the
    worker was not ready. `record` is the name that `crashes show` takes."""

    worker: str
    epoch: int
    model: str
    at: float
    reason: str
    signal: int | None = None
    code: int | None = None
    detail: str = ""
    was_asked: bool = False
    record: str = ""
    uptime_s: float | None = None
    n_streams: int | None = None
    n_went_on: int = 0
    n_waiting: int = 0
    n_ended: int = 0
    longest_pause_s: float = 0.0
    pauses: tuple[PauseRow, ...] = ()


class Deaths(Message, frozen=True):
    """Newest first."""

    rows: tuple[DeathRow, ...] = ()


class Limits(Message, frozen=True):
    """The limits that a client may run into."""

    running: int
    queue: int
    rows: tuple[tuple[str, str], ...] = ()
    """Names of the configuration with their values."""


class KeyRow(Message, frozen=True):
    """One access key. Its text is known to its holder only."""

    name: str
    scopes: tuple[Scope, ...]
    created_at: float
    expires_at: float | None = None
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


class Keys(Message, frozen=True):
    """For administrators only."""

    rows: tuple[KeyRow, ...] = ()


class LogLine(Message, frozen=True):
    """A line and the process that wrote it."""

    process: str
    text: str


class LogLines(Message, frozen=True):
    """New lines of all processes, for administrators only: they may name paths and clients."""

    lines: tuple[LogLine, ...] = ()


class Hello(Message, frozen=True):
    """The first event. `build` names the page's files: a page of another build loads itself
    anew."""

    build: str
    version: str
    started_at: float
    now: float
    scopes: tuple[Scope, ...]
    is_anonymous: bool
    needs_key: bool
    runtime_dir: str = ""
    history: tuple[Point, ...] = ()
    ended: tuple[RequestRow, ...] = ()
    machine: Recent | None = None
    """The last hour of the devices, with the tracks that are drawn."""


EVENTS: dict[type[Message], str] = {
    Hello: "hello",
    Tick: "tick",
    Deaths: "deaths",
    Limits: "limits",
    Keys: "keys",
    LogLines: "log",
}
"""The names of the stream's events."""
