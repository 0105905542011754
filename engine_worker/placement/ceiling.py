"""The memory of each GPU that one process may take: the front's limit against what is free."""

from collections.abc import Iterable

import msgspec

from gpufc.facts import EngineDevice


class DeviceCeiling:
    """The limit of one process, for all models that it loads.

    Invariant: `_at_first` has what was free at the process's first look at each device. What has
    gone from there since counts as the process's own. A device that reports no memory has no limit.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes
        self._at_first: dict[str, int] = {}

    def under(self, devices: Iterable[EngineDevice]) -> tuple[EngineDevice, ...]:
        """These devices, just looked at, with at most what is left of the limit as free memory."""
        return tuple(map(self._limited, devices))

    def taken(self, devices: Iterable[EngineDevice]) -> dict[str, int]:
        """The bytes that the process has taken of these devices, just looked at, by name. `under`
        must have had each of them before. Devices with none are left out."""
        return {one.name: n for one in devices if (n := self._taken_of(one))}

    def _limited(self, device: EngineDevice) -> EngineDevice:
        self._at_first.setdefault(device.name, device.memory_free_bytes)
        if self.limit_bytes is None:
            return device
        left = max(0, self.limit_bytes - self._taken_of(device))
        free = min(device.memory_free_bytes, left)
        return msgspec.structs.replace(device, memory_free_bytes=free)

    def _taken_of(self, device: EngineDevice) -> int:
        return max(0, self._at_first[device.name] - device.memory_free_bytes)
