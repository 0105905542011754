"""Amounts of memory by place: the host, and each device."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

HOST = "host"
"""The place of a process's own memory: all but mapped files and devices."""


class Memory(Struct, frozen=True, kw_only=True):
    """What one worker takes. `devices` has bytes by the device's name, such as `CUDA0`.

    `host_bytes` are its own (anonymous) memory. `mapped_bytes` are of its model's file, mapped and
    shared by all workers of that file: the kernel counts them as available, but a model is slow
    without them.
    """

    host_bytes: int = 0
    mapped_bytes: int = 0
    devices: Mapping[str, int] = {}

    def at(self, place: str) -> int:
        """The bytes at a place, mapped ones apart."""
        return self.host_bytes if place == HOST else self.devices.get(place, 0)

    @property
    def places(self) -> tuple[str, ...]:
        """The host, and the devices with any bytes."""
        return (HOST, *(name for name, n_bytes in self.devices.items() if n_bytes))

    def __or__(self, other: "Memory") -> "Memory":
        """The larger amount at each place."""
        return Memory(
            host_bytes=max(self.host_bytes, other.host_bytes),
            mapped_bytes=max(self.mapped_bytes, other.mapped_bytes),
            devices={name: max(self.at(name), other.at(name)) for name in _names(self, other)},
        )


class Free(Struct, frozen=True, kw_only=True):
    """The machine's memory at the time `at` (monotonic seconds), as the system reports it.

    `host_bytes` counts reclaimable file cache as free. `total_…` are the capacities; 0 and absent
    where unknown. A device that is missing in `devices` sets no limit. `contexts` has the bytes
    that each worker takes on a device, apart from what it holds there.
    """

    at: float
    host_bytes: int
    total_host_bytes: int = 0
    devices: Mapping[str, int] = {}
    total_devices: Mapping[str, int] = {}
    contexts: Mapping[str, int] = {}

    def free(self, place: str) -> int | None:
        """The free bytes at a place; None if they are unknown."""
        return self.host_bytes if place == HOST else self.devices.get(place)

    def total(self, place: str) -> int:
        """The capacity of a place; 0 if it is unknown."""
        return self.total_host_bytes if place == HOST else self.total_devices.get(place, 0)


def _names(*memories: Memory) -> Iterable[str]:
    return dict.fromkeys(name for memory in memories for name in memory.devices)
