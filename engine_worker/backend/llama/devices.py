"""The devices that ggml sees, of any maker."""

import ctypes
from collections.abc import Sequence

import msgspec

from engine_worker.backend.llama.bindings import INT, POINTER, SIZE, TEXT, Signatures, bind
from gpufc.facts import EngineDevice

_SIZE_P = ctypes.POINTER(SIZE)
_SIGNATURES: Signatures = {
    "ggml_backend_dev_count": (SIZE, []),
    "ggml_backend_dev_get": (POINTER, [SIZE]),
    "ggml_backend_dev_name": (TEXT, [POINTER]),
    "ggml_backend_dev_description": (TEXT, [POINTER]),
    "ggml_backend_dev_type": (INT, [POINTER]),
    "ggml_backend_dev_memory": (None, [POINTER, _SIZE_P, _SIZE_P]),
}
_HANDLE: Signatures = {"ggml_backend_dev_by_name": (POINTER, [TEXT])}
# enum ggml_backend_dev_type
_KINDS = ("cpu", "gpu", "igpu", "accel")


def list_devices(library: ctypes.CDLL) -> tuple[EngineDevice, ...]:
    """All devices with their memory now. Empty if the library lacks a function."""
    return with_memory(library, known_devices(library))


def known_devices(library: ctypes.CDLL) -> tuple[EngineDevice, ...]:
    """All devices, with no figure of their memory: to ask for it makes a CUDA context on a device,
    which takes half a GiB there for as long as the process lives. Empty if the library lacks a
    function."""
    if not bind(library, _SIGNATURES):
        return ()
    devices = []
    for index in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(index)
        number = library.ggml_backend_dev_type(device)
        devices.append(
            EngineDevice(
                name=_text(library.ggml_backend_dev_name(device)),
                description=_text(library.ggml_backend_dev_description(device)).strip(),
                kind=_KINDS[number] if 0 <= number < len(_KINDS) else "other",
                memory_free_bytes=0,
                memory_total_bytes=0,
            )
        )
    return tuple(devices)


def with_memory(library: ctypes.CDLL, devices: Sequence[EngineDevice]) -> tuple[EngineDevice, ...]:
    """These devices with their memory now."""
    handles = device_handles(library, [one.name for one in devices])
    found = []
    for device, handle in zip(devices, handles, strict=False):  # `handles` ends with a NULL
        free, total = SIZE(), SIZE()
        library.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
        memory = {"memory_free_bytes": free.value, "memory_total_bytes": total.value}
        found.append(msgspec.structs.replace(device, **memory))
    return tuple(found)


def device_handles(library: ctypes.CDLL, names: Sequence[str]) -> ctypes.Array[ctypes.c_void_p]:
    """ggml's pointers to devices that `known_devices` has named, ended by NULL."""
    bind(library, _HANDLE)
    handles = [library.ggml_backend_dev_by_name(name.encode()) for name in names]
    return (ctypes.c_void_p * (len(handles) + 1))(*handles, None)


def _text(given: bytes | None) -> str:
    return (given or b"").decode("utf-8", "replace")
