"""What raises an alarm on the dashboard."""

from msgspec import structs

from supervisor.devices.snapshot import Host, Source, SourceState
from supervisor.fleet.port import Condition, WorkerStatus
from supervisor.fleet.states import WorkerState
from supervisor.http.dashboard.alarms import alarms
from supervisor.http.dashboard.messages import AlarmRow
from tests.fakes.facts import model_facts
from tests.supervisor.dispatch.fakes import FAILED, MODEL, OK, worker_status

WORKER = worker_status("default-0")


def raised(
    condition: Condition = OK,
    worker: WorkerStatus = WORKER,
    host: Host | None = None,
    source: SourceState = SourceState.OK,
    waiting: int = 0,
) -> list[AlarmRow]:
    sources = [Source(name="nvml", state=source, detail="it hangs")]
    return list(alarms(condition, [worker], host or Host(), sources, waiting, queue_limit=8))


def test_a_healthy_service_has_none() -> None:
    healthy = Host(
        disk_total_bytes=100,
        disk_free_bytes=50,
        memory_total_bytes=100,
        memory_available_bytes=50,
    )
    assert raised(host=healthy, waiting=7, source=SourceState.ABSENT) == []


def test_a_service_that_has_failed_is_grave_and_comes_first() -> None:
    worker = structs.replace(WORKER, state=WorkerState.BACKOFF)
    first, second = raised(FAILED, worker)
    assert (first.subject, first.text, first.is_grave) == ("service", FAILED.detail, True)
    assert (second.subject, second.is_grave) == ("default-0", False)


def test_a_failed_worker_says_why() -> None:
    worker = structs.replace(WORKER, state=WorkerState.FAILED, detail="no such file")
    (alarm,) = raised(worker=worker)
    assert (alarm.subject, alarm.is_grave) == ("default-0", True)
    assert alarm.text.endswith("no such file")


def test_a_model_that_refuses_chats_says_why() -> None:
    worker = structs.replace(WORKER, facts=model_facts(template_error="line 3"))
    assert [(one.subject, one.text) for one in raised(worker=worker)] == [
        (MODEL, "refuses chats: line 3")
    ]


def test_a_full_queue_a_full_disk_and_a_source_that_hangs_are_told() -> None:
    full = Host(
        disk_total_bytes=1000,
        disk_free_bytes=10,
        memory_total_bytes=1000,
        memory_available_bytes=10,
    )
    found = raised(host=full, waiting=8, source=SourceState.HUNG)
    assert [one.subject for one in found] == ["queue", "disk", "memory", "nvml"]
