"""AMD and Intel GPUs, from the files of their kernel drivers under /sys/class/drm.

The files are those of amdgpu, i915 and xe (Documentation/gpu of the kernel; hwmon's are in
Documentation/hwmon/sysfs-interface.rst). NVIDIA's cards are `nvml`'s.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from supervisor.devices.port import SourceAbsent
from supervisor.devices.snapshot import Device

ROOT = Path("/sys/class/drm")
KINDS = {"0x1002": ("amd", "AMD"), "0x8086": ("intel", "Intel")}
"""PCI vendors: the kind of their devices, and the name of one that has none."""

MILLI, MICRO, MHZ = 1e-3, 1e-6, 1_000_000
PCIE_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}
"""By the speed of a lane in GT/s."""
_MOST_BYTES = 4096


class DrmSource:
    """All cards whose drivers show figures. An integrated GPU without any is passed over."""

    name = "drm"

    def __init__(self, root: Path = ROOT, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._energies: dict[Path, tuple[float, float]] = {}

    def sample(self) -> tuple[Device, ...]:
        """Raises `SourceAbsent` when there is no such card."""
        counts: dict[str, int] = {}
        devices = []
        for folder, (kind, brand) in self._cards():
            index = counts.get(kind, 0)
            counts[kind] = index + 1
            devices.append(self._device(folder, kind, brand, index))
        if not devices:
            raise SourceAbsent("no AMD or Intel GPU with figures")
        return tuple(devices)

    def _cards(self) -> Iterator[tuple[Path, tuple[str, str]]]:
        names = [card for card in self._root.glob("card*") if card.name[4:].isdigit()]
        for card in sorted(names, key=lambda one: int(one.name[4:])):
            folder = card / "device"
            known = KINDS.get(_text(folder / "vendor"))
            if known and (_hwmon(folder) or (folder / "gpu_busy_percent").exists()):
                yield folder, known

    def _device(self, folder: Path, kind: str, brand: str, index: int) -> Device:
        sensors = _hwmon(folder)
        model = _text(folder / "device")
        busy = _number(folder / "gpu_busy_percent")
        clocks = [folder / "tile0/gt0/freq0/act_freq", folder.parent / "gt_act_freq_mhz"]
        clock = _scaled(_first(sensors, "freq1_input"), 1) or _scaled(_first_of(clocks), MHZ)
        return Device(
            index=index,
            name=_text(folder / "product_name") or f"{brand} GPU {model.removeprefix('0x')}",
            kind=kind,
            uuid=_text(folder / "unique_id") or None,
            utilization=None if busy is None else busy / 100,
            memory_used_bytes=_number(folder / "mem_info_vram_used"),
            memory_total_bytes=_number(folder / "mem_info_vram_total"),
            temperature_celsius=_scaled(_first(sensors, "temp1_input", "temp2_input"), MILLI),
            temperature_limit_celsius=_scaled(_first(sensors, "temp1_crit"), MILLI),
            fan_ratio=_ratio(_first(sensors, "pwm1"), 255),
            power_watts=self._power(sensors),
            power_limit_watts=_scaled(_first(sensors, "power1_cap", "power1_max"), MICRO),
            clock_hz=None if clock is None else round(clock),
            memory_clock_hz=_first(sensors, "freq2_input"),
            pci_address=folder.resolve().name,
            pci_device_id=int(model, 16) if model.startswith("0x") else None,
            pcie_generation=PCIE_GENERATIONS.get(
                _text(folder / "current_link_speed").split(" ")[0]
            ),
            pcie_lanes=_number(folder / "current_link_width"),
            ecc_corrected_errors=_errors(folder, "ce"),
            ecc_uncorrected_errors=_errors(folder, "ue"),
        )

    def _power(self, sensors: Sequence[Path]) -> float | None:
        """The power, or the energy since the last sample over the time."""
        power = _first(sensors, "power1_average", "power1_input")
        if power is not None:
            return power * MICRO
        for sensor in sensors:
            energy = _number(sensor / "energy1_input")
            if energy is not None:
                now = self._clock()
                at, before = self._energies.get(sensor, (now, energy))
                self._energies[sensor] = (now, energy)
                return (energy - before) * MICRO / (now - at) if now > at else None
        return None


def _hwmon(folder: Path) -> list[Path]:
    return sorted((folder / "hwmon").glob("hwmon*"))


def _first(sensors: Sequence[Path], *names: str) -> int | None:
    return _first_of([sensor / name for name in names for sensor in sensors])


def _first_of(paths: Sequence[Path]) -> int | None:
    return next((value for path in paths if (value := _number(path)) is not None), None)


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _ratio(value: int | None, whole: int) -> float | None:
    return None if value is None else value / whole


def _errors(folder: Path, kind: str) -> int | None:
    """Errors of the memory since the driver was loaded: lines `ue: 0` and `ce: 0`."""
    for line in _text(folder / "ras/umc_err_count").splitlines():
        name, _, count = line.partition(":")
        if name.strip() == kind and count.strip().isdigit():
            return int(count)
    return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    """A small file's text; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""
