"""The devices that ggml sees, whoever made them. Not in llama-cpp-python's bindings: ctypes."""

import ctypes
from collections.abc import Sequence

from gpufc.protocol import EngineDevice

# enum ggml_backend_dev_type
_KINDS = ("cpu", "gpu", "igpu", "accel")


def list_devices(library: ctypes.CDLL) -> tuple[EngineDevice, ...]:
    """All devices with their memory now. Empty if the library does not export what it takes."""
    try:
        count = library.ggml_backend_dev_count
        get = library.ggml_backend_dev_get
        name = library.ggml_backend_dev_name
        description = library.ggml_backend_dev_description
        kind = library.ggml_backend_dev_type
        memory = library.ggml_backend_dev_memory
    except AttributeError:
        return ()
    count.restype = ctypes.c_size_t
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    for text in (name, description):
        text.restype, text.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    kind.restype, kind.argtypes = ctypes.c_int, [ctypes.c_void_p]
    size_p = ctypes.POINTER(ctypes.c_size_t)
    memory.restype, memory.argtypes = None, [ctypes.c_void_p, size_p, size_p]
    devices = []
    for index in range(count()):
        device, free, total = get(index), ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        number = kind(device)
        devices.append(
            EngineDevice(
                name=(name(device) or b"").decode("utf-8", "replace"),
                description=(description(device) or b"").decode("utf-8", "replace").strip(),
                kind=_KINDS[number] if 0 <= number < len(_KINDS) else "other",
                memory_free_bytes=free.value,
                memory_total_bytes=total.value,
            )
        )
    return tuple(devices)


def device_handles(library: ctypes.CDLL, names: Sequence[str]) -> ctypes.Array[ctypes.c_void_p]:
    """ggml's pointers to devices that `list_devices` has named, and NULL at the end."""
    by_name = library.ggml_backend_dev_by_name
    by_name.restype, by_name.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    handles = [by_name(name.encode()) for name in names]
    return (ctypes.c_void_p * (len(handles) + 1))(*handles, None)
