"""The readiness that follows from the state of a line of processes. Pure."""

from collections.abc import Iterable

from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.port import Condition, ConditionStatus
from supervisor.fleet.states import WorkerState

START_S = 2.0
"""From spawn to ready with a small model: the estimate before anything was measured."""

FAILED_S = 60.0
"""A failed worker does not come back by itself, but clients and proxies need a number."""

LONGEST_S = 600.0
"""The longest time that a client is told to wait."""

_BEST_FIRST = (
    ConditionStatus.OK,
    ConditionStatus.LOADING,
    ConditionStatus.RESTARTING,
    ConditionStatus.HUNG,
    ConditionStatus.DRAINING,
    ConditionStatus.FAILED,
)


def of_group(conditions: Iterable[Condition]) -> Condition:
    """The best condition of a group: one worker that can serve is enough, and ends the search."""
    seen = []
    for condition in conditions:
        if condition.status is ConditionStatus.OK:
            return condition
        seen.append(condition)
    return min(
        seen,
        key=lambda condition: (_BEST_FIRST.index(condition.status), condition.retry_after_s),
    )


def of_defect(detail: str) -> Condition:
    """The condition of a worker that the fleet's own defect has ended."""
    return Condition(ConditionStatus.FAILED, detail, FAILED_S)


def of_lifecycle(worker: WorkerLifecycle, now: float) -> Condition:
    """The condition of one line of processes. `now` is the clock of its events."""
    detail = worker.detail
    match worker.state:
        case WorkerState.READY:
            return Condition(ConditionStatus.OK, detail, 0.0)
        case WorkerState.PLACING | WorkerState.STARTING | WorkerState.LOADING | WorkerState.TRYING:
            return Condition(_coming_up(worker), detail, _rest_of_load(worker, now))
        case WorkerState.BACKOFF:
            wait = max(0.0, (worker.retry_at or now) - now)
            return Condition(ConditionStatus.RESTARTING, detail, wait + START_S)
        case WorkerState.STOPPING:
            return Condition(_stopping(worker), detail, START_S)
        case WorkerState.DRAINING:
            return Condition(ConditionStatus.DRAINING, detail, START_S)
        case WorkerState.STOPPED if worker.epoch == 0:
            return Condition(ConditionStatus.LOADING, "not started yet", START_S)
        case WorkerState.STOPPED:
            return Condition(ConditionStatus.DRAINING, detail, START_S)
        case WorkerState.FAILED:
            return Condition(ConditionStatus.FAILED, detail, FAILED_S)


def _coming_up(worker: WorkerLifecycle) -> ConditionStatus:
    last = worker.last_exit
    is_first = not worker.restarts or (last is not None and last.reason is Reason.UNLOADED)
    return ConditionStatus.LOADING if is_first else ConditionStatus.RESTARTING


def _stopping(worker: WorkerLifecycle) -> ConditionStatus:
    if worker.giving_up is Reason.HUNG:
        return ConditionStatus.HUNG
    if worker.giving_up in {Reason.STOPPED, Reason.UNLOADED}:
        return ConditionStatus.DRAINING
    return ConditionStatus.RESTARTING


def _rest_of_load(worker: WorkerLifecycle, now: float) -> float:
    """The rest of the load at its rate so far; at least a second."""
    done = worker.loading_fraction
    if worker.state is not WorkerState.LOADING or done <= 0.0:
        return START_S
    return max(1.0, (now - worker.since) * (1.0 - done) / done)
