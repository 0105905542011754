"""The devices that ggml sees, of any maker."""

import ctypes
from collections.abc import Sequence

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
    if not bind(library, _SIGNATURES):
        return ()
    devices = []
    for index in range(library.ggml_backend_dev_count()):
        device, free, total = library.ggml_backend_dev_get(index), SIZE(), SIZE()
        library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        number = library.ggml_backend_dev_type(device)
        devices.append(
            EngineDevice(
                name=_text(library.ggml_backend_dev_name(device)),
                description=_text(library.ggml_backend_dev_description(device)).strip(),
                kind=_KINDS[number] if 0 <= number < len(_KINDS) else "other",
                memory_free_bytes=free.value,
                memory_total_bytes=total.value,
            )
        )
    return tuple(devices)


def device_handles(library: ctypes.CDLL, names: Sequence[str]) -> ctypes.Array[ctypes.c_void_p]:
    """ggml's pointers to devices that `list_devices` has named, ended by NULL."""
    bind(library, _HANDLE)
    handles = [library.ggml_backend_dev_by_name(name.encode()) for name in names]
    return (ctypes.c_void_p * (len(handles) + 1))(*handles, None)


def _text(given: bytes | None) -> str:
    return (given or b"").decode("utf-8", "replace")
