"""The machine's figures, from psutil, within the limits of its cgroup."""

import os
import time

import psutil

from gpufc import cgroup
from supervisor.devices.snapshot import Host


class HostSource:
    """Samples CPU, memory, disk and network. Rates and percentages count since the last sample."""

    name = "host"

    def __init__(self, disk_path: str = "/") -> None:
        self._disk_path = disk_path
        self._network_before: tuple[float, int, int] | None = None
        self._primed = False
        self._throttled_before: tuple[float, int] | None = None

    def sample(self) -> Host:
        if not self._primed:
            psutil.cpu_percent()  # psutil's first answer is always 0: it has no earlier reading
            time.sleep(0.1)
            self._primed = True
        memory = psutil.virtual_memory()
        limits = cgroup.limits()
        disk = psutil.disk_usage(self._disk_path)
        received, sent = self._network_rates()
        events = cgroup.events()
        return Host(
            cpu_percent=psutil.cpu_percent(),
            cpu_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
            cpu_limit=limits.cpus,
            cpu_throttled_ratio=self._throttled(events.throttled_us),
            load_1m=os.getloadavg()[0],
            memory_total_bytes=_least(memory.total, limits.memory_bytes),
            memory_available_bytes=_least(memory.available, limits.memory_free_bytes),
            memory_limit_bytes=limits.memory_bytes,
            oom_kills=events.oom_kills,
            swap_used_bytes=psutil.swap_memory().used,
            disk_total_bytes=disk.total,
            disk_free_bytes=disk.free,
            network_received_bytes_per_s=received,
            network_sent_bytes_per_s=sent,
        )

    def _network_rates(self) -> tuple[float, float]:
        now = time.monotonic()
        received = sent = 0
        for name, counters in psutil.net_io_counters(pernic=True).items():
            if name not in ("lo", "lo0"):
                received += counters.bytes_recv
                sent += counters.bytes_sent
        before, self._network_before = self._network_before, (now, received, sent)
        if before is None or now <= before[0]:
            return 0.0, 0.0
        elapsed = now - before[0]
        return max(0, received - before[1]) / elapsed, max(0, sent - before[2]) / elapsed

    def _throttled(self, total_us: int | None) -> float | None:
        """The part of the time since the last sample."""
        if total_us is None:
            return None
        now = time.monotonic()
        before, self._throttled_before = self._throttled_before, (now, total_us)
        if before is None or now <= before[0]:
            return 0.0
        return min(1.0, max(0, total_us - before[1]) / 1e6 / (now - before[0]))


def _least(value: int, limit: int | None) -> int:
    return value if limit is None else min(value, limit)
