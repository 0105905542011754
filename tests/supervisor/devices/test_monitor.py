"""The monitor: `snapshot` answers at once in any state of a driver, and tells that state."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from supervisor.devices.host import HostSource
from supervisor.devices.monitor import DeviceMonitor
from supervisor.devices.nvml import NvmlSource
from supervisor.devices.port import Sample, SourceAbsent
from supervisor.devices.snapshot import Device, Host, Snapshot, SourceState
from tests.service import wait_for

GPU = Device(index=0, name="fake", kind="cuda", utilization=0.5)


class FakeSource:
    name = "fake"

    def __init__(self, sample: Callable[[], Sample]) -> None:
        self.sample = sample


@contextmanager
def running(sample: Callable[[], Sample], **options: float) -> Iterator[DeviceMonitor]:
    monitor = DeviceMonitor([FakeSource(sample)], **{"interval_s": 0.01, **options})  # type: ignore[arg-type]
    monitor.start()
    yield monitor
    monitor.stop()


def eventually(monitor: DeviceMonitor, state: SourceState) -> Snapshot:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        snapshot = monitor.snapshot()
        if snapshot.sources[0].state is state:
            return snapshot
        time.sleep(0.005)
    pytest.fail(f"never became {state}: {monitor.snapshot()}")


def test_figures_appear_with_their_age() -> None:
    began = time.monotonic()
    with running(lambda: (GPU,)) as monitor:
        snapshot = eventually(monitor, SourceState.OK)
        since = time.monotonic() - began
    assert snapshot.devices == (GPU,)
    assert snapshot.sources[0].age_s is not None
    assert 0 <= snapshot.sources[0].age_s <= since


def test_before_the_first_sample_the_snapshot_is_empty_and_says_so() -> None:
    release = threading.Event()
    with running(lambda: (release.wait(60), ())[1]) as monitor:
        snapshot = monitor.snapshot()
        release.set()
    assert snapshot.devices == ()
    assert snapshot.host == Host()
    assert snapshot.sources[0].state is SourceState.PENDING


def test_a_driver_that_hangs_is_called_hung_and_neither_a_snapshot_nor_stop_waits_for_it() -> None:
    release, answered = threading.Event(), threading.Event()
    calls: list[int] = []

    def sample() -> tuple[Device, ...]:
        calls.append(1)
        if len(calls) > 1:
            release.wait()
            answered.set()
        return (GPU,)

    with running(sample, hung_after_s=0.05) as monitor:
        wait_for(lambda: len(calls) == 2)
        snapshot = eventually(monitor, SourceState.HUNG)
        for _ in range(100):
            monitor.snapshot()
        monitor.stop()
        assert not answered.is_set()
        assert len(calls) == 2
        release.set()
    assert snapshot.devices == (GPU,), "the last figures stay"
    assert "not answered" in snapshot.sources[0].detail


def test_a_driver_that_answers_again_is_no_longer_hung() -> None:
    release = threading.Event()
    with running(lambda: (release.wait(60), (GPU,))[1], hung_after_s=0.02) as monitor:
        eventually(monitor, SourceState.HUNG)
        release.set()
        assert eventually(monitor, SourceState.OK).devices == (GPU,)


def test_an_absent_source_says_why() -> None:
    def sample() -> Sample:
        raise SourceAbsent("no such thing")

    with running(sample) as monitor:
        assert eventually(monitor, SourceState.ABSENT).sources[0].detail == "no such thing"


def test_a_driver_that_fails_keeps_its_last_figures_and_recovers() -> None:
    failing = threading.Event()

    def sample() -> Sample:
        if failing.is_set():
            raise OSError("gone")
        return (GPU,)

    with running(sample) as monitor:
        eventually(monitor, SourceState.OK)
        failing.set()
        snapshot = eventually(monitor, SourceState.FAILED)
        assert snapshot.devices == (GPU,)
        assert snapshot.sources[0].detail == "OSError: gone"
        failing.clear()
        eventually(monitor, SourceState.OK)


def test_the_figures_are_kept_over_time_under_the_device_s_name() -> None:
    with running(lambda: (GPU,)) as monitor:
        deadline = time.monotonic() + 30
        while not (tracks := monitor.history().tracks) and time.monotonic() < deadline:
            time.sleep(0.005)
    found = {track.name: track.points[-1] for track in tracks}
    assert found["cuda0.utilization"] == 0.5


def test_a_driver_that_fails_for_long_becomes_an_alarm() -> None:
    def sample() -> Sample:
        raise OSError("gone")

    seconds = iter(range(10_000))
    monitor = DeviceMonitor(
        [FakeSource(sample)], interval_s=0.005, wall_clock=lambda: float(next(seconds))
    )
    monitor.start()
    try:
        deadline = time.monotonic() + 30
        while not (alarms := monitor.snapshot().alarms) and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        monitor.stop()
    assert [(alarm.kind, alarm.subject, alarm.text) for alarm in alarms] == [
        ("driver_error", "fake", "OSError: gone")
    ]


def test_the_host_has_memory_disk_and_processors() -> None:
    host = HostSource("/").sample()
    assert 0 < host.memory_available_bytes <= host.memory_total_bytes
    assert 0 < host.disk_free_bytes <= host.disk_total_bytes
    assert host.cpu_count >= 1
    assert 0 <= host.cpu_percent <= 100


def test_without_a_driver_nvml_says_which_library_it_looked_for() -> None:
    with pytest.raises(SourceAbsent, match=r"no NVIDIA driver \(libnothing\.so not found\)"):
        NvmlSource("libnothing.so").sample()
