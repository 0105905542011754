"""The devices that ggml sees, whoever made them. Not in llama-cpp-python's bindings: ctypes."""

import ctypes

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


def free_gpu_bytes(devices: tuple[EngineDevice, ...]) -> int:
    """Free memory of all GPUs together; 0 without one."""
    return sum(entry.memory_free_bytes for entry in devices if entry.kind in ("gpu", "igpu"))
