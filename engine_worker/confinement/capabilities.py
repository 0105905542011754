"""Root's powers, which a worker in a container often has and none needs (capabilities(7))."""

import ctypes
import os
import struct

from engine_worker.confinement.landlock import NotConfined

KEPT = {"DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "IPC_LOCK": 14, "SYS_NICE": 23, "SYS_RESOURCE": 24}
"""To read a model of another user, to lock it in memory, to choose cores and limits. Landlock holds
for root, too."""

_VERSION_3 = 0x20080522


def drop() -> None:
    """Keep none but those. Does nothing without any. Raises `NotConfined`."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    if libc.capget(header, data):
        raise NotConfined(f"capabilities cannot be read: {os.strerror(ctypes.get_errno())}")
    low_effective, low_permitted, _, *_ = struct.unpack("=6I", data.raw)
    kept = sum(1 << number for number in KEPT.values())
    left = struct.pack("=6I", low_effective & kept, low_permitted & kept, 0, 0, 0, 0)
    if left == data.raw:
        return  # where there is none left, a service manager may have forbidden the call, too
    if libc.capset(header, left):
        raise NotConfined(f"capabilities cannot be dropped: {os.strerror(ctypes.get_errno())}")
