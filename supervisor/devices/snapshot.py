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


class DeviceProcess(Struct, frozen=True):
    """A process that computes on a device. Its memory is None where the driver does not tell."""

    pid: int
    memory_bytes: int | None = None


class DriverError(Struct, frozen=True):
    """The last error that the driver reported: an Xid of NVIDIA. `at` is unix time in seconds."""

    code: int
    at: float


class Device(Struct, frozen=True, kw_only=True):
    """An accelerator. `utilization` is 0…1. A figure that the driver does not have is None, never
    0.

    `index` counts the devices of a `kind`. Limits of temperature are those at which the driver
    lowers the clock. `throttled` names the driver's present reasons for a lower clock, apart from
    idleness and limits that a person has set. ECC errors count since the driver was loaded.
    """

    index: int
    name: str
    kind: str
    uuid: str | None = None
    driver: str | None = None
    utilization: float | None = None
    memory_utilization: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    temperature_limit_celsius: float | None = None
    fan_ratio: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    clock_hz: int | None = None
    clock_most_hz: int | None = None
    memory_clock_hz: int | None = None
    pci_address: str | None = None
    pci_device_id: int | None = None
    pcie_generation: int | None = None
    pcie_lanes: int | None = None
    pcie_received_bytes_per_s: float | None = None
    pcie_sent_bytes_per_s: float | None = None
    ecc_corrected_errors: int | None = None
    ecc_uncorrected_errors: int | None = None
    last_error: DriverError | None = None
    throttled: tuple[str, ...] = ()
    processes: tuple[DeviceProcess, ...] = ()

    @property
    def id(self) -> str:
        """Its name in alarms and in the history, such as `cuda0`."""
        return f"{self.kind}{self.index}"


class Host(Struct, frozen=True, kw_only=True):
    """The machine, within the limits that a container sets.

    `cpu_percent` is of the whole machine, 0…100. Memory is the smaller of the machine's and the
    cgroup's; `memory_limit_bytes` and `cpu_limit` are the cgroup's own, None without one.
    `cpu_throttled_ratio` is the part of time in which the cgroup's limit held its processes back,
    `oom_kills` its processes that the kernel has killed for memory. Network figures are rates over
    all interfaces but loopback. The disk is that of the runtime folder.
    """

    cpu_percent: float = 0.0
    cpu_count: int = 0
    cpu_limit: float | None = None
    cpu_throttled_ratio: float | None = None
    load_1m: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    memory_limit_bytes: int | None = None
    oom_kills: int | None = None
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


class AlarmKind(StrEnum):
    """What an operator should look at."""

    HOT = "hot"
    MEMORY_FULL = "memory_full"
    THROTTLED = "throttled"
    DRIVER_ERROR = "driver_error"
    DISK_FULL = "disk_full"


class Alarm(Struct, frozen=True, kw_only=True):
    """A state of the machine that lasts. `subject` is a device's id, `host`, or a source's name.
    `since` is unix time in seconds."""

    kind: AlarmKind
    subject: str
    text: str
    since: float


class Snapshot(Struct, frozen=True, kw_only=True):
    """All figures. A hung or failed source keeps its last ones."""

    host: Host
    devices: tuple[Device, ...]
    sources: tuple[Source, ...]
    alarms: tuple[Alarm, ...] = ()
