"""NVIDIA GPUs, through NVML (nvidia-ml-py).

The binding is imported only if the driver's library is there, to save its memory.
"""

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar

from supervisor.devices.port import SourceAbsent
from supervisor.devices.snapshot import Device

T = TypeVar("T")

LIBRARY = "libnvidia-ml.so.1"


class NvmlSource:
    """All GPUs that the driver shows. The first sample initialises NVML, on the sampling thread."""

    name = "nvml"

    def __init__(self, library: str = LIBRARY) -> None:
        self._library = library
        self._nvml: Any = None

    def sample(self) -> tuple[Device, ...]:
        """Raises `SourceAbsent` when there is no driver or no GPU."""
        nvml = self._nvml or self._initialise()
        try:
            return tuple(self._device(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        except nvml.NVMLError:
            self._nvml = (
                None  # the driver was reloaded or lost the GPU: the next sample begins anew
            )
            raise

    def _initialise(self) -> Any:
        try:
            ctypes.CDLL(self._library)
        except OSError:
            raise SourceAbsent(f"no NVIDIA driver ({self._library} not found)") from None
        import pynvml as nvml

        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as err:
            raise SourceAbsent(f"the NVIDIA driver is not usable: {err}") from err
        if not count:
            raise SourceAbsent("the NVIDIA driver shows no GPU")
        self._nvml = nvml
        return nvml

    def _device(self, nvml: Any, index: int) -> Device:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)

        def told(read: Callable[[], T]) -> T | None:
            try:
                return read()
            except nvml.NVMLError as err:
                if err.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_NO_PERMISSION):
                    return None
                raise

        memory = told(lambda: _memory(nvml, handle))
        rates = told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        power = told(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        limit = told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        pci = told(lambda: nvml.nvmlDeviceGetPciInfo(handle))
        return Device(
            index=index,
            name=nvml.nvmlDeviceGetName(handle),
            kind="cuda",
            utilization=None if rates is None else rates.gpu / 100,
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
            temperature_celsius=told(
                lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
            ),
            power_watts=None if power is None else power / 1000,
            power_limit_watts=None if limit is None else limit / 1000,
            # the vendor is the lower half
            pci_device_id=None if pci is None else pci.pciDeviceId >> 16,
        )


def _memory(nvml: Any, handle: Any) -> Any:
    """The used memory. The call's first version counts the driver's reserve as used; old drivers
    have no other."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError as err:
        if err.value != nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise
        return nvml.nvmlDeviceGetMemoryInfo(handle)
