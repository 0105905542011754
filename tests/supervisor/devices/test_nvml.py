"""NVIDIA figures through a fake binding: units, and figures that a driver lacks."""

from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.devices.nvml import NvmlSource
from supervisor.devices.nvml_card import SLOW_EVERY
from supervisor.devices.snapshot import DeviceProcess


class FakeError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


class FakeNvml:
    """A driver with one card. A figure may be a value or the error of its call."""

    NVMLError = FakeError
    NVML_ERROR_INVALID_ARGUMENT = 2
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_TIMEOUT = 10
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_NO_DATA = 21
    NVML_TEMPERATURE_GPU = 0
    NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_PCIE_UTIL_TX_BYTES = 0
    NVML_PCIE_UTIL_RX_BYTES = 1
    NVML_MEMORY_ERROR_TYPE_CORRECTED = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    nvmlEventTypeXidCriticalError = 8  # noqa: N815
    nvmlMemory_v2 = 2  # noqa: N815

    def __init__(self, *, is_old: bool = False, **figures: Any) -> None:
        self.calls: list[str] = []
        self.events: list[int] = []
        self._is_old = is_old
        self._figures: dict[str, Any] = {
            "Count": 1,
            "HandleByIndex": "handle",
            "Name": "NVIDIA Fake",
            "UUID": "GPU-1",
            "UtilizationRates": SimpleNamespace(gpu=42, memory=7),
            "PowerUsage": 250_000,
            "EnforcedPowerLimit": 700_000,
            "Temperature": 65,
            "TemperatureThreshold": 87,
            "PciInfo": SimpleNamespace(pciDeviceId=0x2335_10DE, busId="00000000:18:00.0"),
            "ClockInfo": 1_980,
            "MaxClockInfo": 1_980,
            "FanSpeed": FakeError(self.NVML_ERROR_NOT_SUPPORTED),
            "CurrentClocksThrottleReasons": 0x1 | 0x4 | 0x80,
            "CurrPcieLinkGeneration": 5,
            "CurrPcieLinkWidth": 16,
            "PcieThroughput": 10,
            "TotalEccErrors": 0,
            "ComputeRunningProcesses": [SimpleNamespace(pid=7, usedGpuMemory=1 << 20)],
        } | figures

    def nvmlDeviceGetMemoryInfo(self, _: str, version: int | None = None) -> Any:  # noqa: N802
        if version is None:
            return SimpleNamespace(used=2 << 30, total=4 << 30)
        if self._is_old:
            raise FakeError(self.NVML_ERROR_FUNCTION_NOT_FOUND)
        return SimpleNamespace(used=1 << 30, total=4 << 30, reserved=1 << 30)

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.1"

    def nvmlEventSetCreate(self) -> Any:  # noqa: N802
        if self._is_old:
            raise FakeError(self.NVML_ERROR_NOT_SUPPORTED)
        return "events"

    def nvmlDeviceRegisterEvents(self, *_: object) -> None:  # noqa: N802
        pass

    def nvmlEventSetWait_v2(self, _: str, timeout_ms: int) -> Any:  # noqa: N802
        assert timeout_ms == 0
        if not self.events:
            raise FakeError(self.NVML_ERROR_TIMEOUT)
        return SimpleNamespace(eventData=self.events.pop(0), device="handle")

    def __getattr__(self, name: str) -> Any:
        answer = self._figures[name.removeprefix("nvmlDeviceGet")]

        def call(*_: object) -> Any:
            self.calls.append(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def source(nvml: FakeNvml) -> NvmlSource:
    made = NvmlSource()
    made._nvml = nvml
    return made


def test_units_are_those_of_the_names() -> None:
    (device,) = source(FakeNvml()).sample()
    assert (device.utilization, device.memory_utilization) == (0.42, 0.07)
    assert (device.power_watts, device.power_limit_watts) == (250.0, 700.0)
    assert (device.memory_used_bytes, device.memory_total_bytes) == (1 << 30, 4 << 30)
    assert (device.temperature_celsius, device.temperature_limit_celsius) == (65.0, 87.0)
    assert (device.id, device.name, device.uuid) == ("cuda0", "NVIDIA Fake", "GPU-1")
    assert (device.driver, device.pci_address) == ("570.1", "00000000:18:00.0")
    assert device.pci_device_id == 0x2335
    assert (device.clock_hz, device.clock_most_hz) == (1_980_000_000, 1_980_000_000)
    assert (device.pcie_generation, device.pcie_lanes) == (5, 16)
    assert device.pcie_received_bytes_per_s == 10 * 1024
    assert device.ecc_uncorrected_errors == 0
    assert device.throttled == ("power cap", "power brake")
    assert device.processes == (DeviceProcess(7, 1 << 20),)
    assert device.last_error is None


def test_an_old_driver_counts_its_reserve_as_used_and_reports_no_events() -> None:
    (device,) = source(FakeNvml(is_old=True)).sample()
    assert device.memory_used_bytes == 2 << 30


@pytest.mark.parametrize("code", [2, 3, 4, 13, 21])
def test_a_figure_that_the_driver_lacks_is_none(code: int) -> None:
    (device,) = source(FakeNvml(PowerUsage=FakeError(code))).sample()
    assert device.power_watts is None
    assert device.utilization == 0.42


def test_after_a_lost_gpu_the_driver_is_initialised_anew() -> None:
    made = source(FakeNvml(PowerUsage=FakeError(FakeNvml.NVML_ERROR_GPU_IS_LOST)))
    with pytest.raises(FakeError):
        made.sample()
    assert made._nvml is None
    assert made._cards == []


def test_an_xid_stays_with_its_card() -> None:
    nvml = FakeNvml()
    made = source(nvml)
    made.sample()
    nvml.events = [31, 79]
    for _ in range(2):
        (device,) = made.sample()
        assert device.last_error is not None
        assert device.last_error.code == 79


def test_slow_figures_are_read_less_often() -> None:
    nvml = FakeNvml()
    made = source(nvml)
    for _ in range(SLOW_EVERY):
        made.sample()
    assert nvml.calls.count("nvmlDeviceGetPcieThroughput") == 2
    assert nvml.calls.count("nvmlDeviceGetUtilizationRates") == SLOW_EVERY
