"""On a machine with an NVIDIA GPU: the figures are those of `nvidia-smi` in the same second."""

import shutil
import subprocess

import pytest

from supervisor.devices.nvml import NvmlSource
from supervisor.devices.snapshot import Device

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="nvidia-smi is missing"),
]

MIB = 1 << 20
FIELDS = (
    *("uuid", "name", "driver_version", "memory.total", "memory.used", "temperature.gpu"),
    *("power.limit", "pcie.link.width.current", "ecc.errors.uncorrected.volatile.total"),
)


def reported() -> list[dict[str, str]]:
    query = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    return [
        dict(zip(FIELDS, (value.strip() for value in line.split(",")), strict=True))
        for line in lines.splitlines()
    ]


def number(text: str) -> float | None:
    """A figure; None for `[N/A]`."""
    try:
        return float(text)
    except ValueError:
        return None


def test_each_card_has_the_figures_of_nvidia_smi() -> None:
    source = NvmlSource()
    source.sample()
    devices = {device.uuid: device for device in source.sample()}
    cards = reported()
    assert len(devices) == len(cards)
    for card in cards:
        _check(devices[card["uuid"]], card)


def _check(device: Device, card: dict[str, str]) -> None:
    assert (device.name, device.driver) == (card["name"], card["driver_version"])
    for ours, theirs, tolerance in (
        (device.memory_total_bytes, number(card["memory.total"]), 1),
        (device.memory_used_bytes, number(card["memory.used"]), 64),
    ):
        assert theirs is not None
        assert (ours or 0) / MIB == pytest.approx(theirs, abs=tolerance)
    for figure, wanted, tolerance in (
        (device.temperature_celsius, number(card["temperature.gpu"]), 3),
        (device.power_limit_watts, number(card["power.limit"]), 1),
        (device.pcie_lanes, number(card["pcie.link.width.current"]), 0),
        (device.ecc_uncorrected_errors, number(card[FIELDS[-1]]), 0),
    ):
        assert (figure is None) == (wanted is None)
        if wanted is not None:
            assert figure == pytest.approx(wanted, abs=tolerance)
