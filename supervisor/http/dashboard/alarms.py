"""What the front itself raises an alarm for: models, workers, places in the queue, disk. Pure."""

from collections.abc import Iterator, Sequence

from supervisor.devices.snapshot import Host, Source, SourceState
from supervisor.fleet.port import Condition, ConditionStatus, WorkerStatus
from supervisor.fleet.states import WorkerState
from supervisor.http.dashboard.messages import AlarmRow

FULL_DISK = 0.95
FULL_MEMORY = 0.97


def alarms(
    condition: Condition,
    workers: Sequence[WorkerStatus],
    host: Host,
    sources: Sequence[Source],
    waiting: int,
    queue_limit: int,
) -> tuple[AlarmRow, ...]:
    """The alarms of this moment, the gravest first."""
    found = [
        *_of_service(condition),
        *_of_workers(workers),
        *_of_queue(waiting, queue_limit),
        *_of_host(host),
        *_of_sources(sources),
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


def _of_host(host: Host) -> Iterator[AlarmRow]:
    for name, total, free, full in (
        ("disk", host.disk_total_bytes, host.disk_free_bytes, FULL_DISK),
        ("memory", host.memory_total_bytes, host.memory_available_bytes, FULL_MEMORY),
    ):
        if total and 1 - free / total > full:
            yield AlarmRow(subject=name, text=f"is nearly full: {free / 2**30:.1f} GiB are free")


def _of_sources(sources: Sequence[Source]) -> Iterator[AlarmRow]:
    for source in sources:
        if source.state in {SourceState.FAILED, SourceState.HUNG}:
            yield AlarmRow(subject=source.name, text=f"gives no figures: {source.detail}")
