"""What raises an alarm on the dashboard."""

from msgspec import structs

from supervisor.devices.snapshot import Alarm, AlarmKind, Host, Snapshot, Source, SourceState
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
    machine: tuple[Alarm, ...] = (),
    source: SourceState = SourceState.OK,
    waiting: int = 0,
) -> list[AlarmRow]:
    sources = (Source(name="nvml", state=source, detail="it hangs"),)
    figures = Snapshot(host=Host(), devices=(), sources=sources, alarms=machine)
    return list(alarms(condition, [worker], figures, waiting, queue_limit=8))


def test_a_healthy_service_has_none() -> None:
    assert raised(waiting=7, source=SourceState.ABSENT) == []


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


def test_a_full_queue_the_machines_alarms_and_a_source_that_hangs_are_told() -> None:
    hot = Alarm(kind=AlarmKind.HOT, subject="cuda0", text="is at 95 °C", since=10.0)
    found = raised(machine=(hot,), waiting=8, source=SourceState.HUNG)
    assert [one.subject for one in found] == ["queue", "cuda0", "nvml"]
    assert (found[1].text, found[1].since) == ("is at 95 °C", 10.0)
