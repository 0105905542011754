"""The machine's figures as frozen values. `/stats` carries them under these names."""

from enum import StrEnum

from msgspec import Struct


class SourceState(StrEnum):
    """A source's state. Only `ok` means that its figures are current."""

    PENDING = "pending"
    OK = "ok"
    ABSENT = "absent"
    FAILED = "failed"
    HUNG = "hung"


class Device(Struct, frozen=True, kw_only=True):
    """An accelerator. `utilization` is 0…1. A figure that the driver does not have is None, never
    0."""

    index: int
    name: str
    kind: str
    utilization: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    pci_device_id: int | None = None


class Host(Struct, frozen=True, kw_only=True):
    """The machine, within the limits that a container sets.

    `cpu_percent` is of the whole machine, 0…100. Memory is the smaller of the machine's and the
    cgroup's; `memory_limit_bytes` and `cpu_limit` are the cgroup's own, None without one. Network
    figures are rates over all interfaces but loopback. The disk is that of the runtime folder.
    """

    cpu_percent: float = 0.0
    cpu_count: int = 0
    cpu_limit: float | None = None
    load_1m: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    memory_limit_bytes: int | None = None
    swap_used_bytes: int = 0
    disk_total_bytes: int = 0
    disk_free_bytes: int = 0
    network_received_bytes_per_s: float = 0.0
    network_sent_bytes_per_s: float = 0.0


class Source(Struct, frozen=True, kw_only=True):
    """A source's state and the age of its figures. `detail` is the reason for missing figures."""

    name: str
    state: SourceState
    detail: str = ""
    age_s: float | None = None


class Snapshot(Struct, frozen=True, kw_only=True):
    """All figures. A hung or failed source keeps its last ones."""

    host: Host
    devices: tuple[Device, ...]
    sources: tuple[Source, ...]
