"""The states of one line of worker processes, and the legal moves between them. Pure."""

from enum import StrEnum


class WorkerState(StrEnum):
    """Where a line of processes is. The words of `/stats`."""

    STOPPED = "stopped"
    PLACING = "placing"
    STARTING = "starting"
    LOADING = "loading"
    TRYING = "trying"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


COMING_UP = frozenset({WorkerState.STARTING, WorkerState.LOADING, WorkerState.TRYING})
SERVING = frozenset({WorkerState.READY, WorkerState.DRAINING})
UP = COMING_UP | SERVING
HAS_PROCESS = UP | {WorkerState.STOPPING}
AT_REST = frozenset(
    {WorkerState.STOPPED, WorkerState.PLACING, WorkerState.BACKOFF, WorkerState.FAILED}
)

_START = frozenset({WorkerState.PLACING, WorkerState.STARTING})
_DIED = frozenset({WorkerState.BACKOFF, WorkerState.FAILED}) | _START

MOVES: dict[WorkerState, frozenset[WorkerState]] = {
    WorkerState.STOPPED: _START,
    WorkerState.PLACING: frozenset({WorkerState.STARTING, WorkerState.STOPPED}),
    WorkerState.STARTING: frozenset({WorkerState.LOADING, WorkerState.STOPPING})
    | (_DIED - {WorkerState.STARTING}),
    WorkerState.LOADING: frozenset({WorkerState.TRYING, WorkerState.READY, WorkerState.STOPPING})
    | (_DIED - {WorkerState.STARTING}),
    WorkerState.TRYING: frozenset({WorkerState.READY, WorkerState.STOPPING})
    | (_DIED - {WorkerState.STARTING}),
    WorkerState.READY: frozenset({WorkerState.DRAINING, WorkerState.STOPPING}) | _DIED,
    WorkerState.DRAINING: frozenset({WorkerState.STOPPING}) | _DIED,
    WorkerState.STOPPING: frozenset({WorkerState.STOPPED}) | _DIED,
    WorkerState.BACKOFF: _START | {WorkerState.STOPPED},
    WorkerState.FAILED: _START | {WorkerState.STOPPED},
}
"""All legal moves. `WorkerLifecycle` raises `IllegalMove` for any other."""
