"""Samples every source on its own daemon thread, so that no driver can block the front.

A driver call that hangs blocks its thread only. `snapshot` reads the threads' last figures and says
if they are old, and why. One more thread keeps the last hour and the alarms.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, structs

from supervisor.devices.alarms import Alarms
from supervisor.devices.history import History, Recent
from supervisor.devices.port import DeviceSource, Sample, SourceAbsent
from supervisor.devices.snapshot import (
    Alarm,
    Device,
    Host,
    Snapshot,
    Source,
    SourceState,
)

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
ABSENT_INTERVAL_S = 60.0
HUNG_AFTER_S = 5.0

HOST = "host"
HOST_TRACKS = (
    *("cpu_percent", "cpu_throttled_ratio", "memory_available_bytes", "disk_free_bytes"),
    *("network_received_bytes_per_s", "network_sent_bytes_per_s"),
)
DEVICE_TRACKS = (
    *("utilization", "memory_used_bytes", "temperature_celsius", "power_watts", "clock_hz"),
    *("pcie_received_bytes_per_s", "pcie_sent_bytes_per_s"),
)


class _Outcome(Struct, frozen=True):
    """The result of the last finished call. Replaced as a whole, so any thread may read it."""

    state: SourceState
    detail: str
    sample: Sample | None
    sampled_at: float | None


class _Sampler:
    """A source and its thread. Only that thread writes; any thread may read."""

    def __init__(self, source: DeviceSource, interval_s: float, clock: Callable[[], float]) -> None:
        self._source = source
        self._interval_s = interval_s
        self._clock = clock
        self._outcome = _Outcome(SourceState.PENDING, "not sampled yet", None, None)
        self._call_began_at: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"devices-{source.name}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, without waiting: it may be inside a call that hangs."""
        self._stop.set()

    def read(self, now: float, hung_after_s: float) -> tuple[Source, Sample | None]:
        """The state and the last figures, without waiting."""
        outcome, began = self._outcome, self._call_began_at
        age_s = None if outcome.sampled_at is None else max(0.0, now - outcome.sampled_at)
        state, detail = outcome.state, outcome.detail
        if began is not None and now - began > hung_after_s:
            state = SourceState.HUNG
            detail = f"the driver has not answered for {now - began:.0f} s"
        source = Source(name=self._source.name, state=state, detail=detail, age_s=age_s)
        return source, outcome.sample

    def _run(self) -> None:
        while not self._stop.is_set():
            self._call_began_at = self._clock()
            outcome = self._call()
            self._outcome = outcome
            self._call_began_at = None
            absent = outcome.state is SourceState.ABSENT
            self._stop.wait(ABSENT_INTERVAL_S if absent else self._interval_s)

    def _call(self) -> _Outcome:
        last = self._outcome
        try:
            sample = self._source.sample()
        except SourceAbsent as err:
            return _Outcome(SourceState.ABSENT, str(err), None, None)
        except Exception as err:  # a driver may raise anything; the thread must go on
            if last.state is not SourceState.FAILED:
                logger.warning("device source failed source=%s error=%r", self._source.name, err)
            return _Outcome(
                SourceState.FAILED, f"{type(err).__name__}: {err}", last.sample, last.sampled_at
            )
        return _Outcome(SourceState.OK, "", sample, self._clock())


class DeviceMonitor:
    """All sources together. `start` and `stop` once each; the rest from any thread, any time."""

    def __init__(
        self,
        sources: Sequence[DeviceSource],
        *,
        interval_s: float = INTERVAL_S,
        hung_after_s: float = HUNG_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._samplers = [_Sampler(source, interval_s, clock) for source in sources]
        self._interval_s = interval_s
        self._hung_after_s = hung_after_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._history = History()
        self._alarms: tuple[Alarm, ...] = ()
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._keep, name="devices-history", daemon=True)

    def start(self) -> None:
        """Start a thread for each source, and one that watches. Returns at once."""
        for sampler in self._samplers:
            sampler.start()
        self._watch.start()

    def stop(self) -> None:
        """Ask all threads to end. Returns at once, also when a driver hangs."""
        self._stop.set()
        for sampler in self._samplers:
            sampler.stop()

    def snapshot(self) -> Snapshot:
        """The latest figures and alarms. Takes no lock and calls no driver."""
        return structs.replace(self._figures(), alarms=self._alarms)

    def history(self, since: float = 0.0) -> Recent:
        """The last hour, or its part after `since` in unix seconds (`History.recent`)."""
        return self._history.recent(since)

    def _figures(self) -> Snapshot:
        now = self._clock()
        host = Host()
        devices: list[Device] = []
        sources: list[Source] = []
        for sampler in self._samplers:
            source, sample = sampler.read(now, self._hung_after_s)
            sources.append(source)
            if isinstance(sample, Host):
                host = sample
            elif sample is not None:
                devices.extend(sample)
        return Snapshot(host=host, devices=tuple(devices), sources=tuple(sources))

    def _keep(self) -> None:
        alarms = Alarms()
        while not self._stop.wait(self._interval_s):
            snapshot, at = self._figures(), self._wall_clock()
            self._history.record(at, tracked(snapshot))
            for alarm, has_begun in alarms.take(snapshot, at):
                level = logging.WARNING if has_begun else logging.INFO
                event = "alarm_began" if has_begun else "alarm_ended"
                logger.log(
                    level, "%s kind=%s subject=%s: %s", event, alarm.kind, alarm.subject, alarm.text
                )
            self._alarms = alarms.current


def tracked(snapshot: Snapshot) -> Mapping[str, float | None]:
    """The figures that the history keeps, such as `host.cpu_percent` and `cuda0.power_watts`.

    Figures of a source that has not answered yet, or not lately, are left out.
    """
    if any(one.state is not SourceState.OK for one in snapshot.sources if one.name == HOST):
        found: dict[str, float | None] = {}
    else:
        found = {f"host.{name}": getattr(snapshot.host, name) for name in HOST_TRACKS}
    for device in snapshot.devices:
        found |= {f"{device.id}.{name}": getattr(device, name) for name in DEVICE_TRACKS}
    return found


def default_monitor(disk_path: str = "/") -> DeviceMonitor:
    """The monitor of this machine. `disk_path` lies on the watched disk."""
    from supervisor.devices.drm import DrmSource
    from supervisor.devices.host import HostSource
    from supervisor.devices.nvml import NvmlSource

    return DeviceMonitor([HostSource(disk_path), NvmlSource(), DrmSource()])
