"""What a worker's state means to whoever waits for it. Pure."""

from collections.abc import Iterable

from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.lifecycle import WorkerLifecycle, WorkerState
from supervisor.fleet.port import Condition, ConditionStatus
from supervisor.fleet.runner import WorkerRunner

START_S = 2.0
"""From spawn to ready with a small model: the guess while nothing is known yet."""

FAILED_S = 60.0
"""Nothing changes by itself then, but clients and proxies must be told something."""

_BEST_FIRST = (
    ConditionStatus.OK,
    ConditionStatus.LOADING,
    ConditionStatus.RESTARTING,
    ConditionStatus.HUNG,
    ConditionStatus.DRAINING,
    ConditionStatus.FAILED,
)


def of_group(conditions: Iterable[Condition]) -> Condition:
    """One worker that can serve is enough; otherwise the one that will be back first."""
    return min(
        conditions,
        key=lambda condition: (_BEST_FIRST.index(condition.status), condition.retry_after_s),
    )


def of_runner(runner: WorkerRunner, now: float) -> Condition:
    """The condition of what one runner runs."""
    if runner.defect is not None:
        return Condition(ConditionStatus.FAILED, runner.defect, FAILED_S)
    return of_worker(runner.lifecycle, now)


def of_worker(worker: WorkerLifecycle, now: float) -> Condition:
    """The condition of one worker. `now` is the clock that its events were handled with."""
    detail = worker.detail
    match worker.state:
        case WorkerState.READY:
            return Condition(ConditionStatus.OK, detail, 0.0)
        case WorkerState.STARTING | WorkerState.LOADING:
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
    return ConditionStatus.RESTARTING if worker.restarts else ConditionStatus.LOADING


def _stopping(worker: WorkerLifecycle) -> ConditionStatus:
    if worker.giving_up is Reason.HUNG:
        return ConditionStatus.HUNG
    if worker.giving_up is Reason.STOPPED:
        return ConditionStatus.DRAINING
    return ConditionStatus.RESTARTING


def _rest_of_load(worker: WorkerLifecycle, now: float) -> float:
    """As long as loading has taken for what is done, for what is left; one second at least."""
    done = worker.loading_fraction
    if worker.state is not WorkerState.LOADING or done <= 0.0:
        return START_S
    return max(1.0, (now - worker.since) * (1.0 - done) / done)
