"""The memory of each GPU that one process may take: the front's limit against what is free."""

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from gpufc.facts import EngineDevice


class DeviceCeiling:
    """The limit of one process, for all models that it loads.

    Invariant: what has gone from a device between two looks counts as the process's own, whether
    or not another process took it. What has come back does not make room: another process gave it
    back, unless the process says that it did (`given_back`). So a look comes before and after each
    time that the process takes memory. A device that reports no memory has no limit.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes
        self._free: dict[str, int] = {}
        """At the last look."""
        self._own: Counter[str] = Counter()

    def under(self, devices: Iterable[EngineDevice]) -> tuple[EngineDevice, ...]:
        """These devices, just looked at, with at most what is left of the limit as free memory."""
        return tuple(map(self._limited, devices))

    def taken(self, devices: Iterable[EngineDevice]) -> dict[str, int]:
        """The bytes that the process has taken of these devices, just looked at, by name. Devices
        with none are left out."""
        return {one.name: n for one in devices if (n := self._look(one))}

    def given_back(self, devices: Iterable[EngineDevice], own: Mapping[str, int]) -> None:
        """The process has given memory back: it has only `own` (of `taken`) of these devices, just
        looked at."""
        for one in devices:
            self._free[one.name] = one.memory_free_bytes
            self._own[one.name] = own.get(one.name, 0)

    def _limited(self, device: EngineDevice) -> EngineDevice:
        own = self._look(device)
        if self.limit_bytes is None:
            return device
        free = min(device.memory_free_bytes, max(0, self.limit_bytes - own))
        return msgspec.structs.replace(device, memory_free_bytes=free)

    def _look(self, device: EngineDevice) -> int:
        """What the process has of a device by this look at it."""
        now = device.memory_free_bytes
        self._own[device.name] += max(0, self._free.get(device.name, now) - now)
        self._free[device.name] = now
        return self._own[device.name]
