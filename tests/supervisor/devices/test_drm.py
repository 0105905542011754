"""AMD and Intel GPUs from trees of files as their kernel drivers make them."""

from pathlib import Path

import pytest

from supervisor.devices.drm import DrmSource
from supervisor.devices.port import SourceAbsent

AMD = {
    "vendor": "0x1002",
    "device": "0x744c",
    "product_name": "Radeon RX 7900 XTX",
    "unique_id": "abc",
    "gpu_busy_percent": "37",
    "mem_info_vram_total": str(24 << 30),
    "mem_info_vram_used": str(3 << 30),
    "current_link_speed": "16.0 GT/s PCIe",
    "current_link_width": "16",
    "ras/umc_err_count": "ue: 1\nce: 4",
    "hwmon/hwmon3/temp1_input": "61000",
    "hwmon/hwmon3/temp1_crit": "100000",
    "hwmon/hwmon3/power1_average": "250000000",
    "hwmon/hwmon3/power1_cap": "339000000",
    "hwmon/hwmon3/freq1_input": "2300000000",
    "hwmon/hwmon3/freq2_input": "1249000000",
    "hwmon/hwmon3/pwm1": "51",
}
INTEL = {
    "vendor": "0x8086",
    "device": "0x56a0",
    "hwmon/hwmon5/energy1_input": "1000000",
    "hwmon/hwmon5/temp2_input": "50000",
}


def card(root: Path, name: str, files: dict[str, str]) -> Path:
    folder = root / name / "device"
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text + "\n")
    return folder


def test_an_amd_card_tells_everything_in_the_units_of_the_names(tmp_path: Path) -> None:
    card(tmp_path, "card1", AMD)
    (device,) = DrmSource(tmp_path).sample()
    assert (device.id, device.name, device.uuid) == ("amd0", "Radeon RX 7900 XTX", "abc")
    assert device.utilization == 0.37
    assert (device.memory_used_bytes, device.memory_total_bytes) == (3 << 30, 24 << 30)
    assert (device.temperature_celsius, device.temperature_limit_celsius) == (61.0, 100.0)
    assert (device.power_watts, device.power_limit_watts) == (250.0, 339.0)
    assert (device.clock_hz, device.memory_clock_hz) == (2_300_000_000, 1_249_000_000)
    assert (device.pcie_generation, device.pcie_lanes) == (4, 16)
    assert (device.ecc_corrected_errors, device.ecc_uncorrected_errors) == (4, 1)
    assert (device.fan_ratio, device.pci_device_id) == (0.2, 0x744C)


def test_an_intel_card_s_power_comes_from_its_energy(tmp_path: Path) -> None:
    folder = card(tmp_path, "card0", INTEL)
    (tmp_path / "card0" / "gt_act_freq_mhz").write_text("2400\n")
    seconds = iter([0.0, 2.0])
    source = DrmSource(tmp_path, lambda: next(seconds))
    (device,) = source.sample()
    assert (device.id, device.name, device.power_watts) == ("intel0", "Intel GPU 56a0", None)
    assert (device.clock_hz, device.temperature_celsius) == (2_400_000_000, 50.0)
    (folder / "hwmon/hwmon5/energy1_input").write_text("101000000\n")
    assert source.sample()[0].power_watts == 50.0


def test_cards_count_by_kind_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2):
        card(tmp_path, f"card{number}", AMD | {"unique_id": str(number)})
    card(tmp_path, "card3", INTEL)
    card(tmp_path, "card2-DP-1", AMD)
    devices = DrmSource(tmp_path).sample()
    assert [(device.id, device.uuid) for device in devices] == [
        ("amd0", "2"),
        ("intel0", None),
        ("amd1", "10"),
    ]


@pytest.mark.parametrize(
    "files", [{"vendor": "0x10de", "hwmon/hwmon0/temp1_input": "1"}, {"vendor": "0x8086"}, {}]
)
def test_other_cards_and_silent_ones_are_passed_over(tmp_path: Path, files: dict[str, str]) -> None:
    card(tmp_path, "card0", files)
    with pytest.raises(SourceAbsent):
        DrmSource(tmp_path).sample()
