"""Samples every source on its own daemon thread, so that no driver can block the front.

A driver call that hangs blocks its thread only. `snapshot` reads the threads' last figures and says
if they are old, and why.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from supervisor.devices.port import DeviceSource, Sample, SourceAbsent
from supervisor.devices.snapshot import Device, Host, Snapshot, Source, SourceState

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
ABSENT_INTERVAL_S = 60.0
HUNG_AFTER_S = 5.0


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
    """All sources together. `start` and `stop` once each; `snapshot` from any thread, any time."""

    def __init__(
        self,
        sources: Sequence[DeviceSource],
        *,
        interval_s: float = INTERVAL_S,
        hung_after_s: float = HUNG_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._samplers = [_Sampler(source, interval_s, clock) for source in sources]
        self._hung_after_s = hung_after_s
        self._clock = clock

    def start(self) -> None:
        """Start one thread for each source. Returns at once."""
        for sampler in self._samplers:
            sampler.start()

    def stop(self) -> None:
        """Ask all threads to end. Returns at once, also when a driver hangs."""
        for sampler in self._samplers:
            sampler.stop()

    def snapshot(self) -> Snapshot:
        """The latest figures. Takes no lock and calls no driver."""
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


def default_monitor(disk_path: str = "/") -> DeviceMonitor:
    """The monitor of this machine. `disk_path` lies on the watched disk."""
    from supervisor.devices.host import HostSource
    from supervisor.devices.nvml import NvmlSource

    return DeviceMonitor([HostSource(disk_path), NvmlSource()])
