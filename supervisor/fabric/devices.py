"""The machine's figures as the server takes them. Pure.

The server handles exactly one `DevicesInfo` with 1 to 8 devices. An engine without a GPU is one
device: the host. No driver tells TFLOPS: they are those of the server's own table, or 0.
"""

import sys

from msgspec import Struct

from supervisor.devices.snapshot import Device, Host, Snapshot
from supervisor.fabric.messages import DevicesInfo, EngineType, OsType, SystemInfo

MOST_DEVICES = 8
BYTE, WORD = 8, 16
"""Bits of a lane."""

GIB = 1 << 30
NVIDIA = 0x10DE
"""The PCI vendor of all devices with `kind` cuda."""

_KNOWN = {
    "H200": (30, 1979),
    "H100 80GB HBM3": (8965, 1680),
    "GeForce RTX 4090": (None, 83),
}
"""NVML's names without `NVIDIA `: the id that the server knows the device by, where that is not its
PCI id, and its TFLOPS. From GPUFabric's `model_to_id.json` and `id_to_tflops.json`."""

U64_MAX = 2**64 - 1


class Report(Struct, frozen=True):
    """What `Login` and `Heartbeat` say about the machine."""

    system: SystemInfo
    devices: DevicesInfo


def report(snapshot: Snapshot, platform: str = sys.platform) -> Report:
    """The report on a machine. Figures that a driver does not have are 0."""
    devices = snapshot.devices[:MOST_DEVICES]
    lanes = _gpus(devices, platform) if devices else _host(snapshot.host, platform)
    return Report(_system(snapshot.host), lanes)


def os_type(platform: str) -> OsType:
    """The system by `sys.platform`. Never `NONE`, which makes the server panic."""
    if platform == "darwin":
        return OsType.MACOS
    return OsType.WINDOWS if platform.startswith("win") else OsType.LINUX


def packed(values: list[float | int | None], bits: int) -> int:
    """Device i's value in lane i of so many bits, held within the lane."""
    most = (1 << bits) - 1
    return sum(
        max(0, min(most, round(value or 0))) << bits * lane for lane, value in enumerate(values)
    )


def _gpus(devices: tuple[Device, ...], platform: str) -> DevicesInfo:
    memory = [(device.memory_total_bytes or 0) / GIB for device in devices]
    return _info(
        platform,
        len(devices),
        sum(round(one) for one in memory),
        sum(_known(device)[1] for device in devices),
        usage=packed([(device.utilization or 0) * 100 for device in devices], BYTE),
        mem_usage=packed(
            [_percent(d.memory_used_bytes, d.memory_total_bytes) for d in devices], BYTE
        ),
        power_usage=packed([device.power_watts for device in devices], BYTE),
        temp=packed([device.temperature_celsius for device in devices], BYTE),
        vendor_id=packed([NVIDIA if device.kind == "cuda" else 0 for device in devices], WORD),
        device_id=packed([_known(device)[0] or device.pci_device_id for device in devices], WORD),
        memsize_gb=packed(list(memory), WORD),
        powerlimit_w=packed([device.power_limit_watts for device in devices], WORD),
    )


def _host(host: Host, platform: str) -> DevicesInfo:
    memory = host.memory_total_bytes / GIB
    return _info(
        platform,
        1,
        round(memory),
        0,
        usage=packed([host.cpu_percent], BYTE),
        mem_usage=packed([_memory_percent(host)], BYTE),
        memsize_gb=packed([memory], WORD),
    )


def _known(device: Device) -> tuple[int | None, int]:
    return _KNOWN.get(device.name.removeprefix("NVIDIA "), (None, 0))


def _info(
    platform: str, n_devices: int, memtotal_gb: int, tflops: int, **lanes: int
) -> DevicesInfo:
    empty = dict.fromkeys(
        (
            *("usage", "mem_usage", "power_usage", "temp"),
            *("vendor_id", "device_id", "memsize_gb", "powerlimit_w"),
        ),
        0,
    )
    return DevicesInfo(
        num=n_devices,
        pod_id=0,
        total_tflops=min(tflops, (1 << WORD) - 1),
        memtotal_gb=min(memtotal_gb, (1 << WORD) - 1),
        port=0,
        ip=0,
        os_type=os_type(platform),
        engine_type=EngineType.LLAMA,
        **(empty | lanes),
    )


def _system(host: Host) -> SystemInfo:
    disk_used = host.disk_total_bytes - host.disk_free_bytes
    return SystemInfo(
        cpu_usage=_bounded(host.cpu_percent),
        memory_usage=_bounded(_memory_percent(host)),
        disk_usage=_bounded(_percent(disk_used, host.disk_total_bytes)),
        network_rx=min(U64_MAX, round(host.network_received_bytes_per_s)),
        network_tx=min(U64_MAX, round(host.network_sent_bytes_per_s)),
    )


def _memory_percent(host: Host) -> float:
    used = host.memory_total_bytes - host.memory_available_bytes
    return _percent(used, host.memory_total_bytes)


def _percent(part: int | None, whole: int | None) -> float:
    return 100 * (part or 0) / whole if whole else 0.0


def _bounded(percent: float) -> int:
    """The server adds CPU and memory as bytes: beyond 100 each the sum would overflow."""
    return max(0, min(100, round(percent)))
