"""What raises an alarm: the service, its workers, its queue, and what the machine tells. Pure."""

from collections.abc import Iterator, Sequence

from supervisor.devices.snapshot import Alarm, Snapshot, Source, SourceState
from supervisor.fleet.port import Condition, ConditionStatus, WorkerStatus
from supervisor.fleet.states import WorkerState
from supervisor.http.dashboard.messages import AlarmRow


def alarms(
    condition: Condition,
    workers: Sequence[WorkerStatus],
    machine: Snapshot,
    waiting: int,
    queue_limit: int,
) -> tuple[AlarmRow, ...]:
    """The alarms of this moment, the gravest first."""
    found = [
        *_of_service(condition),
        *_of_workers(workers),
        *_of_queue(waiting, queue_limit),
        *_of_machine(machine.alarms),
        *_of_sources(machine.sources),
    ]
    return tuple(sorted(found, key=lambda alarm: not alarm.is_grave))


def _of_service(condition: Condition) -> Iterator[AlarmRow]:
    if condition.status in {ConditionStatus.FAILED, ConditionStatus.HUNG}:
        yield AlarmRow(subject="service", text=condition.detail, is_grave=True)


def _of_workers(workers: Sequence[WorkerStatus]) -> Iterator[AlarmRow]:
    for row in workers:
        if row.state is WorkerState.FAILED:
            text = f"has failed for good: {row.detail or row.last_exit}"
            yield AlarmRow(subject=row.name, text=text, is_grave=True)
        elif row.state is WorkerState.BACKOFF:
            yield AlarmRow(subject=row.name, text=f"waits before its next start: {row.last_exit}")
        if row.facts is not None and row.facts.template_error:
            text = f"refuses chats: {row.facts.template_error}"
            yield AlarmRow(subject=row.model, text=text)


def _of_queue(waiting: int, queue_limit: int) -> Iterator[AlarmRow]:
    if queue_limit and waiting >= queue_limit:
        yield AlarmRow(subject="queue", text=f"is full: {waiting} requests wait", is_grave=True)


def _of_machine(machine: Sequence[Alarm]) -> Iterator[AlarmRow]:
    for alarm in machine:
        yield AlarmRow(subject=alarm.subject, text=alarm.text, since=round(alarm.since, 3))


def _of_sources(sources: Sequence[Source]) -> Iterator[AlarmRow]:
    for source in sources:
        if source.state in {SourceState.FAILED, SourceState.HUNG}:
            yield AlarmRow(subject=source.name, text=f"gives no figures: {source.detail}")
