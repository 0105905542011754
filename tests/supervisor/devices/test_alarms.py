"""Alarms: what begins one, what does not, and when it is over."""

from collections.abc import Iterable

import pytest
from msgspec import structs

from supervisor.devices.alarms import ERROR_S, HELD_S, OVER_S, THROTTLED_S, Alarms
from supervisor.devices.snapshot import (
    AlarmKind,
    Device,
    DriverError,
    Host,
    Snapshot,
    Source,
    SourceState,
)

GIB = 1 << 30
GPU = Device(
    index=0,
    name="a GPU",
    kind="cuda",
    memory_used_bytes=10 * GIB,
    memory_total_bytes=80 * GIB,
    temperature_celsius=60.0,
    temperature_limit_celsius=87.0,
)
HOST = Host(
    memory_total_bytes=100 * GIB,
    memory_available_bytes=50 * GIB,
    disk_total_bytes=500 * GIB,
    disk_free_bytes=100 * GIB,
)
HEALTHY = Snapshot(host=HOST, devices=(GPU,), sources=(Source(name="nvml", state=SourceState.OK),))


def with_gpu(**changes: object) -> Snapshot:
    return structs.replace(HEALTHY, devices=(structs.replace(GPU, **changes),))


def with_host(**changes: object) -> Snapshot:
    return structs.replace(HEALTHY, host=structs.replace(HOST, **changes))


def kinds(alarms: Alarms) -> list[tuple[str, str]]:
    return [(alarm.kind, alarm.subject) for alarm in alarms.current]


def over(alarms: Alarms, snapshot: Snapshot, seconds: Iterable[float]) -> Alarms:
    for at in seconds:
        alarms.take(snapshot, at)
    return alarms


SICK = {
    "a card at its limit": (with_gpu(temperature_celsius=86.0), AlarmKind.HOT, "cuda0"),
    "a card without a limit": (
        with_gpu(temperature_celsius=91.0, temperature_limit_celsius=None),
        *(AlarmKind.HOT, "cuda0"),
    ),
    "a full card": (with_gpu(memory_used_bytes=79 * GIB), AlarmKind.MEMORY_FULL, "cuda0"),
    "full memory": (with_host(memory_available_bytes=GIB), AlarmKind.MEMORY_FULL, "host"),
    "a full disk": (with_host(disk_free_bytes=GIB // 2), AlarmKind.DISK_FULL, "host"),
    "a small full disk": (
        with_host(disk_free_bytes=GIB // 50, disk_total_bytes=GIB // 2),
        *(AlarmKind.DISK_FULL, "host"),
    ),
    "a slow card": (with_gpu(throttled=("power brake",)), AlarmKind.THROTTLED, "cuda0"),
    "an Xid": (with_gpu(last_error=DriverError(79, at=0.0)), AlarmKind.DRIVER_ERROR, "cuda0"),
    "broken memory": (with_gpu(ecc_uncorrected_errors=1), AlarmKind.DRIVER_ERROR, "cuda0"),
    "a hanging driver": (
        structs.replace(HEALTHY, sources=(Source(name="nvml", state=SourceState.HUNG),)),
        *(AlarmKind.DRIVER_ERROR, "nvml"),
    ),
}


@pytest.mark.parametrize("name", SICK)
def test_what_lasts_is_an_alarm_until_it_is_over(name: str) -> None:
    snapshot, kind, subject = SICK[name]
    last = int(THROTTLED_S) + 1
    alarms = over(Alarms(), snapshot, range(last + 1))
    assert kinds(alarms) == [(kind, subject)]
    over(alarms, HEALTHY, range(last + 1, last + 1 + int(OVER_S)))
    assert kinds(alarms) == [(kind, subject)]
    (change,) = alarms.take(HEALTHY, last + OVER_S + 1)
    assert not change.has_begun
    assert alarms.current == ()


FINE = {
    "all well": HEALTHY,
    "a busy card at its power limit": with_gpu(throttled=("power cap",)),
    "a card that tells nothing": structs.replace(
        HEALTHY, devices=(Device(index=0, name="quiet", kind="amd"),)
    ),
    "a small disk": with_host(disk_free_bytes=GIB // 4, disk_total_bytes=GIB // 2),
    "an absent driver": structs.replace(
        HEALTHY, sources=(Source(name="nvml", state=SourceState.ABSENT),)
    ),
    "an Xid of yesterday": with_gpu(last_error=DriverError(79, at=-2 * ERROR_S)),
    "nothing sampled yet": Snapshot(host=Host(), devices=(), sources=()),
}


@pytest.mark.parametrize("name", FINE)
def test_a_healthy_machine_has_none(name: str) -> None:
    assert over(Alarms(), FINE[name], range(100)).current == ()


def test_a_moment_is_no_alarm() -> None:
    hot = with_gpu(temperature_celsius=95.0)
    alarms = over(Alarms(), hot, range(int(HELD_S)))
    over(alarms, HEALTHY, [HELD_S])
    over(alarms, hot, [HELD_S + 1])
    assert alarms.current == ()


def test_a_figure_on_the_edge_does_not_flicker() -> None:
    alarms, changes = Alarms(), []
    for at in range(100):
        heat = 85.0 if at % 3 == 0 or at < 10 else 84.0
        changes += alarms.take(with_gpu(temperature_celsius=heat), at)
    assert [change.has_begun for change in changes] == [True]


def test_the_text_names_the_card_and_the_figure() -> None:
    alarms = over(Alarms(), with_gpu(temperature_celsius=88.0), range(10))
    assert alarms.current[0].text == "a GPU has 88 °C; it lowers its clock at 87 °C"
    assert alarms.current[0].since == 0
