"""The monitor's figures and a heartbeat's lanes beside `nvidia-smi` in the same second.

    python -m scripts.lab.devices_beside [SECONDS] [--idle]

It needs a driver of NVIDIA with `nvidia-smi`, and the packages nvidia-ml-py, psutil and msgspec. A
child for each GPU keeps it busy through the driver's own library; `--idle` leaves the GPUs alone.
Each line has a figure thrice: the monitor's, nvidia-smi's, and the lane of a heartbeat that was
encoded and decoded again. A lane of 8 bits ends at 255. The exit code is 1 where a figure of the
monitor lies further from nvidia-smi's than `TOLERANCE`, or a lane is another than the figure makes.
"""

import argparse
import ctypes
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from supervisor.devices.monitor import default_monitor
from supervisor.devices.snapshot import Device, Snapshot
from supervisor.fabric.codec import HEADER, decode_frame, encode_frame
from supervisor.fabric.devices import MOST_DEVICES
from supervisor.fabric.identity import ClientId
from supervisor.fabric.messages import DevicesInfo, Heartbeat
from supervisor.fabric.reporting import heartbeat

MIB, GIB = 1 << 20, 1 << 30
LOAD_BYTES = 4 * GIB
WARM_UP_S = 5.0

QUERY = (
    *("uuid", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu"),
    *("power.draw", "power.limit", "clocks.sm", "pci.device_id"),
)
TOLERANCE = {
    "utilization %": 10.0,
    "memory MiB": 64.0,
    "memory %": 1.0,
    "memory GiB": 1.0,
    "temperature °C": 3.0,
    "power W": 40.0,
    "limit W": 1.0,
    "clock MHz": 150.0,
    "PCI id": 0.0,
}
"""Both look at moments up to a second apart, so what moves fast may differ more."""

Row = tuple[str, float | None, float | None, int | None]
"""A figure's name, the monitor's, nvidia-smi's, and the lane's; None where there is none."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", nargs="?", type=int, default=10)
    parser.add_argument("--idle", action="store_true", help="put no load on the GPUs")
    args = parser.parse_args()
    if shutil.which("nvidia-smi") is None:
        sys.exit("nvidia-smi is not installed here")
    monitor = default_monitor()
    monitor.start()
    worst = dict.fromkeys(TOLERANCE, 0.0)
    wrong_lanes, n_devices = 0, 0
    with load(0 if args.idle else len(smi())):
        time.sleep(WARM_UP_S)
        for _ in range(args.seconds):
            began = time.monotonic()
            theirs, snapshot = smi(), monitor.snapshot()
            lanes = decoded(snapshot)
            n_devices = len(snapshot.devices)
            print(time.strftime("%H:%M:%S"))
            for lane, device in enumerate(snapshot.devices[:MOST_DEVICES]):
                found = rows(device, theirs[device.uuid or ""], lanes, lane)
                print(f"  {device.id} {device.name}: " + "; ".join(map(shown, found)), flush=True)
                for name, ours, smis, packed in found:
                    if ours is not None and smis is not None:
                        worst[name] = max(worst[name], abs(ours - smis))
                    wrong_lanes += packed is not None and packed != clamped(name, ours)
            time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
    monitor.stop()
    print("\n| figure | largest difference to nvidia-smi | allowed |\n| --- | ---: | ---: |")
    for name, most in TOLERANCE.items():
        print(f"| {name} | {worst[name]:.1f} | {most:g} |")
    print(f"\ndevices: {n_devices}; lanes that are not their figure: {wrong_lanes}")
    is_near = all(worst[name] <= most for name, most in TOLERANCE.items())
    return 0 if n_devices and is_near and not wrong_lanes else 1


def decoded(snapshot: Snapshot) -> DevicesInfo:
    """The devices of a heartbeat as a control server reads them."""
    frame = encode_frame(heartbeat(ClientId("0" * 32, "none"), snapshot))
    message = decode_frame(frame[HEADER.size :])
    if not isinstance(message, Heartbeat):
        raise TypeError(f"a heartbeat was read as {message}")
    (found,) = message.devices_info
    return found


def rows(device: Device, theirs: dict[str, str], lanes: DevicesInfo, lane: int) -> list[Row]:
    """Every figure of a device. `lane` is its place in the heartbeat."""
    used, total = device.memory_used_bytes, device.memory_total_bytes
    smi_used, smi_total = number(theirs["memory.used"]), number(theirs["memory.total"])

    def byte(packed: int) -> int:
        return packed >> 8 * lane & 0xFF

    def word(packed: int) -> int:
        return packed >> 16 * lane & 0xFFFF

    return [
        (
            "utilization %",
            scaled(device.utilization, 100),
            number(theirs["utilization.gpu"]),
            byte(lanes.usage),
        ),
        ("memory MiB", scaled(used, 1 / MIB), smi_used, None),
        (
            "memory %",
            scaled(used, 100 / total) if total else None,
            100 * smi_used / smi_total if smi_used is not None and smi_total else None,
            byte(lanes.mem_usage),
        ),
        ("memory GiB", scaled(total, 1 / GIB), scaled(smi_total, 1 / 1024), word(lanes.memsize_gb)),
        (
            "temperature °C",
            device.temperature_celsius,
            number(theirs["temperature.gpu"]),
            byte(lanes.temp),
        ),
        ("power W", device.power_watts, number(theirs["power.draw"]), byte(lanes.power_usage)),
        (
            "limit W",
            device.power_limit_watts,
            number(theirs["power.limit"]),
            word(lanes.powerlimit_w),
        ),
        ("clock MHz", scaled(device.clock_hz, 1e-6), number(theirs["clocks.sm"]), None),
        # nvidia-smi's has the vendor in the lower half; the lane may be the server's own id
        ("PCI id", device.pci_device_id, int(theirs["pci.device_id"], 16) >> 16, None),
    ]


def clamped(name: str, figure: float | None) -> int:
    """What a lane makes of a figure: rounded, and held within 8 bits, or 16 for limit and size."""
    most = 0xFFFF if name in ("limit W", "memory GiB") else 0xFF
    return max(0, min(most, round(figure or 0)))


def shown(row: Row) -> str:
    name, *figures = row
    return f"{name} " + " / ".join("–" if one is None else f"{one:.0f}" for one in figures)


def scaled(figure: float | None, by: float) -> float | None:
    return None if figure is None else figure * by


def number(text: str) -> float | None:
    """A figure; None for `[N/A]`."""
    try:
        return float(text)
    except ValueError:
        return None


def smi() -> dict[str, dict[str, str]]:
    """nvidia-smi's figures of each GPU, by its uuid."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    cells = [[cell.strip() for cell in line.split(",")] for line in lines.splitlines()]
    return {row[0]: dict(zip(QUERY, row, strict=True)) for row in cells}


@contextmanager
def load(n_gpus: int) -> Iterator[None]:
    """Keep so many GPUs busy meanwhile."""
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=busy, args=(gpu,), daemon=True) for gpu in range(n_gpus)]
    for child in children:
        child.start()
    try:
        yield
    finally:
        for child in children:
            if child.exitcode is not None:
                print("a load has ended early: the figures are those of an idle GPU")
            child.terminate()
            child.join()


def busy(gpu: int) -> None:
    """Fill a part of a GPU's memory again and again, by the driver's library alone."""
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()

    def call(name: str, *words: object) -> None:
        if code := getattr(cuda, name)(*words):
            sys.exit(f"{name} on GPU {gpu}: error {code}")

    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), gpu)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(LOAD_BYTES))
    while True:
        for value in range(64):
            call("cuMemsetD32_v2", address, ctypes.c_uint(value), ctypes.c_size_t(LOAD_BYTES // 4))
        call("cuCtxSynchronize")


if __name__ == "__main__":
    sys.exit(main())
