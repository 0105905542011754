"""NVIDIA figures through a fake binding: units, and figures that a driver lacks."""

from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.devices.nvml import NvmlSource


class FakeError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


class FakeNvml:
    NVMLError = FakeError
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_TEMPERATURE_GPU = 0
    nvmlMemory_v2 = 2  # noqa: N815

    def __init__(self, power: int | Exception = 250_000, *, is_old: bool = False) -> None:
        self.power = power
        self._is_old = is_old

    def nvmlDeviceGetMemoryInfo(self, _: str, version: int | None = None) -> Any:  # noqa: N802
        if version is None:
            return SimpleNamespace(used=2 << 30, total=4 << 30)
        if self._is_old:
            raise FakeError(self.NVML_ERROR_FUNCTION_NOT_FOUND)
        return SimpleNamespace(used=1 << 30, total=4 << 30, reserved=1 << 30)

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "handle",
            "nvmlDeviceGetName": "NVIDIA Fake",
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=42),
            "nvmlDeviceGetPowerUsage": self.power,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetTemperature": 65,
            "nvmlDeviceGetPciInfo": SimpleNamespace(pciDeviceId=0x2335_10DE),
        }

        def call(*_: object) -> Any:
            answer = answers[name]
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
    assert device.utilization == 0.42
    assert (device.power_watts, device.power_limit_watts) == (250.0, 700.0)
    assert (device.memory_used_bytes, device.memory_total_bytes) == (1 << 30, 4 << 30)
    assert device.temperature_celsius == 65.0
    assert (device.kind, device.name) == ("cuda", "NVIDIA Fake")
    assert device.pci_device_id == 0x2335


def test_an_old_driver_counts_its_reserve_as_used() -> None:
    (device,) = source(FakeNvml(is_old=True)).sample()
    assert device.memory_used_bytes == 2 << 30


def test_a_figure_that_the_driver_lacks_is_none() -> None:
    (device,) = source(FakeNvml(FakeError(FakeNvml.NVML_ERROR_NOT_SUPPORTED))).sample()
    assert device.power_watts is None
    assert device.utilization == 0.42


def test_after_a_lost_gpu_the_driver_is_initialised_anew() -> None:
    made = source(FakeNvml(FakeError(FakeNvml.NVML_ERROR_GPU_IS_LOST)))
    with pytest.raises(FakeError):
        made.sample()
    assert made._nvml is None
