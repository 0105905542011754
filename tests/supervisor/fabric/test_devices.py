"""The machine's figures in the server's lanes."""

import struct
from typing import Any

import pytest

from supervisor.devices.snapshot import Device, Host, Snapshot
from supervisor.fabric.codec import HEADER, decode_frame, encode_frame
from supervisor.fabric.devices import GIB, os_type, packed, report
from supervisor.fabric.messages import EngineType, Heartbeat, OsType

HOST = Host(
    cpu_percent=12.4,
    memory_total_bytes=23 * GIB,
    memory_available_bytes=15 * GIB,
    disk_total_bytes=100,
    disk_free_bytes=44,
    network_received_bytes_per_s=1000.2,
    network_sent_bytes_per_s=2000.0,
)


def gpu(index: int, **fields: Any) -> Device:
    given: dict[str, Any] = {
        "utilization": 0.5,
        "memory_used_bytes": 8 * GIB,
        "memory_total_bytes": 80 * GIB,
        "temperature_celsius": 60.0,
        "power_watts": 100.0,
        "power_limit_watts": 700.0,
        "pci_device_id": 0x2305,
    }
    return Device(index=index, name="GPU", kind="cuda", **(given | fields))


def snapshot(*devices: Device, host: Host = HOST) -> Snapshot:
    return Snapshot(host=host, devices=devices, sources=())


def test_a_machine_without_a_gpu_is_one_device() -> None:
    found = report(snapshot(), "linux")
    assert (found.system.cpu_usage, found.system.memory_usage, found.system.disk_usage) == (
        *(12, 35),
        56,
    )
    assert (found.system.network_rx, found.system.network_tx) == (1000, 2000)
    devices = found.devices
    assert (devices.num, devices.memtotal_gb, devices.memsize_gb) == (1, 23, 23)
    assert (devices.usage, devices.mem_usage) == (12, 35)
    assert devices.engine_type is EngineType.LLAMA


def test_each_gpu_has_its_lane() -> None:
    second = gpu(1, utilization=0.75, power_watts=200.0, temperature_celsius=61.0)
    devices = report(snapshot(gpu(0), second), "linux").devices
    assert (devices.num, devices.memtotal_gb) == (2, 160)
    assert struct.pack("<Q", devices.usage)[:2] == bytes((50, 75))
    assert struct.pack("<Q", devices.mem_usage)[:2] == bytes((10, 10))
    assert struct.pack("<Q", devices.power_usage)[:2] == bytes((100, 200))
    assert struct.pack("<Q", devices.temp)[:2] == bytes((60, 61))
    for lanes, value in (
        (devices.vendor_id, 0x10DE),
        (devices.device_id, 0x2305),
        (devices.memsize_gb, 80),
        (devices.powerlimit_w, 700),
    ):
        assert lanes == value | value << 16


def test_devices_have_the_ids_and_figures_of_the_servers_table() -> None:
    h200 = Device(index=0, name="NVIDIA H200", kind="cuda", pci_device_id=0x2335)
    devices = report(snapshot(h200, gpu(1)), "linux").devices
    assert devices.device_id == 30 | 0x2305 << 16
    assert devices.total_tflops == 1979


def test_no_lane_runs_over_into_the_next_one() -> None:
    hot = gpu(0, power_watts=712.4, temperature_celsius=-3.0, power_limit_watts=1e6)
    devices = report(snapshot(hot, gpu(1)), "linux").devices
    assert struct.pack("<Q", devices.power_usage)[:2] == bytes((255, 100))
    assert struct.pack("<Q", devices.temp)[:2] == bytes((0, 60))
    assert devices.powerlimit_w == 65_535 | 700 << 16
    assert packed([None, 300, -1], 8) == 255 << 8


def test_figures_that_a_driver_does_not_have_are_0() -> None:
    bare = Device(index=0, name="GPU", kind="cuda")
    devices = report(snapshot(bare), "linux").devices
    assert (devices.num, devices.usage, devices.memsize_gb, devices.device_id) == (1, 0, 0, 0)


@pytest.mark.parametrize("n_devices", [1, 8, 9, 16])
def test_there_is_always_one_entry_of_at_most_eight_devices_that_can_be_sent(
    n_devices: int,
) -> None:
    found = report(snapshot(*map(gpu, range(n_devices))), "linux")
    assert found.devices.num == min(8, n_devices)
    devices = found.devices
    beat = Heartbeat(bytes(16), found.system, devices.num, devices.memtotal_gb, 0, [found.devices])
    assert decode_frame(encode_frame(beat)[HEADER.size :]) == beat


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32", "freebsd14", "aix"])
def test_the_system_is_never_none(platform: str) -> None:
    assert os_type(platform) in {OsType.LINUX, OsType.MACOS, OsType.WINDOWS}


def test_cpu_and_memory_add_up_within_a_byte() -> None:
    overfull = Host(cpu_percent=400.0, memory_total_bytes=10, memory_available_bytes=-90)
    system = report(snapshot(host=overfull)).system
    assert (system.cpu_usage, system.memory_usage) == (100, 100)
