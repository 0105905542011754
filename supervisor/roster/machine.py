"""The machine's free memory, as the residency needs it."""

import time
from collections.abc import Callable

import psutil

from gpufc import cgroup
from supervisor.devices.host import HostSource
from supervisor.devices.snapshot import Device, Snapshot
from supervisor.residency.memory import Free

CUDA_CONTEXT_BYTES = 518 << 20
"""A worker's CUDA context on each device that it uses, apart from model and cache.

The worker's own figures lack it: asking a device for its memory makes the context. Measured: what
`nvidia-smi` lists for a process that has only asked (engine_worker/placement/NOTES.md)."""


class Machine:
    """Reads the host at each call, and the devices from the monitor, which samples them."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot] | None = None,
        spare_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        """`spare_bytes` of the host are in use, and given up when a load needs them."""
        self._snapshot = snapshot
        self._spare_bytes = spare_bytes

    def __call__(self) -> Free:
        """What is free. `at` is the time of the oldest reading in it."""
        memory, limits, at = psutil.virtual_memory(), cgroup.limits(), time.monotonic()
        found = self._snapshot() if self._snapshot is not None else None
        devices = found.devices if found is not None else ()
        if found is not None and devices:
            at -= max(one.age_s or 0.0 for one in found.sources if one.name != HostSource.name)
        totals = {device_name(one): one.memory_total_bytes or 0 for one in devices}
        return Free(
            at=at,
            host_bytes=_least(memory.available, limits.memory_free_bytes) + self._spare_bytes(),
            total_host_bytes=_least(memory.total, limits.memory_bytes),
            devices={device_name(one): _free(one) for one in devices if one.memory_total_bytes},
            total_devices={name: total for name, total in totals.items() if total},
            contexts={name: context_bytes(name) for name in totals},
        )


def context_bytes(device: str) -> int:
    """The bytes of a worker's context on a device. Only CUDA's was measured; 0 for other kinds."""
    return CUDA_CONTEXT_BYTES if device.startswith("CUDA") else 0


def device_name(device: Device) -> str:
    """ggml's name of a device of the monitor."""
    return f"{device.kind.upper()}{device.index}"


def _free(device: Device) -> int:
    return max(0, (device.memory_total_bytes or 0) - (device.memory_used_bytes or 0))


def _least(value: int, limit: int | None) -> int:
    return value if limit is None else min(value, limit)
