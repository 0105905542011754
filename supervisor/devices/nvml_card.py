"""The figures of one NVIDIA GPU."""

from collections.abc import Callable
from typing import Any, TypeVar

from supervisor.devices.snapshot import Device, DeviceProcess, DriverError

T = TypeVar("T")

SLOW_EVERY = 5
"""Samples from one reading of the slow figures to the next: PCIe's rates take 20 ms each."""

MHZ = 1_000_000
PCIE_UNIT = 1024

REASONS = (
    (0x04, "power cap"),
    (0x08, "hardware slowdown"),
    (0x20, "temperature (driver)"),
    (0x40, "temperature (hardware)"),
    (0x80, "power brake"),
)
"""Bits of `nvmlDeviceGetCurrentClocksThrottleReasons` (nvml.h) that are reasons to look."""


class Card:
    """One GPU. Used on the sampling thread only."""

    def __init__(self, nvml: Any, index: int) -> None:
        """Reads what never changes. Raises `NVMLError`."""
        self._nvml = nvml
        self.handle = handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self.uuid: str | None = self._told(lambda: nvml.nvmlDeviceGetUUID(handle))
        pci = self._told(lambda: nvml.nvmlDeviceGetPciInfo(handle))
        limit = nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        self._fixed: dict[str, Any] = {
            "index": index,
            "kind": "cuda",
            "name": nvml.nvmlDeviceGetName(handle),
            "uuid": self.uuid,
            "driver": self._told(nvml.nvmlSystemGetDriverVersion),
            "pci_address": None if pci is None else _text(pci.busId),
            # the vendor is the lower half
            "pci_device_id": None if pci is None else pci.pciDeviceId >> 16,
            "temperature_limit_celsius": self._told(
                lambda: float(nvml.nvmlDeviceGetTemperatureThreshold(handle, limit))
            ),
            "clock_most_hz": self._told(
                lambda: MHZ * nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)
            ),
        }
        self._slow: dict[str, Any] = {}
        self._n_read = 0

    def read(self, last_error: DriverError | None) -> Device:
        """Every figure now. Raises `NVMLError` for a driver or a card that is gone."""
        if self._n_read % SLOW_EVERY == 0:
            self._slow = self._read_slow()
        self._n_read += 1
        return Device(**self._fixed, **self._slow, **self._read_fast(), last_error=last_error)

    def _read_fast(self) -> dict[str, Any]:
        nvml, handle, told = self._nvml, self.handle, self._told
        memory = told(lambda: _memory(nvml, handle))
        rates = told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        power = told(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        limit = told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        fan = told(lambda: nvml.nvmlDeviceGetFanSpeed(handle))
        reasons = told(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)) or 0
        return {
            "utilization": None if rates is None else rates.gpu / 100,
            "memory_utilization": None if rates is None else rates.memory / 100,
            "memory_used_bytes": None if memory is None else memory.used,
            "memory_total_bytes": None if memory is None else memory.total,
            "temperature_celsius": told(
                lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
            ),
            "fan_ratio": None if fan is None else fan / 100,
            "power_watts": None if power is None else power / 1000,
            "power_limit_watts": None if limit is None else limit / 1000,
            "clock_hz": told(lambda: MHZ * nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "memory_clock_hz": told(
                lambda: MHZ * nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
            ),
            "throttled": tuple(text for bit, text in REASONS if reasons & bit),
        }

    def _read_slow(self) -> dict[str, Any]:
        nvml, handle, told = self._nvml, self.handle, self._told
        processes = told(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ()

        def rate(counter: int) -> float | None:
            return told(
                lambda: float(PCIE_UNIT * nvml.nvmlDeviceGetPcieThroughput(handle, counter))
            )

        def errors(kind: int) -> int | None:
            since_load = nvml.NVML_VOLATILE_ECC
            return told(lambda: int(nvml.nvmlDeviceGetTotalEccErrors(handle, kind, since_load)))

        return {
            "pcie_generation": told(lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle)),
            "pcie_lanes": told(lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle)),
            "pcie_received_bytes_per_s": rate(nvml.NVML_PCIE_UTIL_RX_BYTES),
            "pcie_sent_bytes_per_s": rate(nvml.NVML_PCIE_UTIL_TX_BYTES),
            "ecc_corrected_errors": errors(nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            "ecc_uncorrected_errors": errors(nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            "processes": tuple(DeviceProcess(one.pid, one.usedGpuMemory) for one in processes),
        }

    def _told(self, read: Callable[[], T]) -> T | None:
        """A figure; None if this driver or this card does not have it."""
        nvml = self._nvml
        try:
            return read()
        except nvml.NVMLError as err:
            lacking = {
                *(nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_NO_PERMISSION),
                *(nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT),
                nvml.NVML_ERROR_NO_DATA,
            }
            if err.value in lacking:
                return None
            raise


def _memory(nvml: Any, handle: Any) -> Any:
    """The used memory. The call's first version counts the driver's reserve as used; old drivers
    have no other."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError as err:
        if err.value != nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def _text(name: Any) -> str:
    return name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
