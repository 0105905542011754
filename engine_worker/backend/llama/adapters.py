"""LoRA adapters in llama.cpp: loaded after the model, before its context; applied to a context."""

import ctypes
import os
from collections.abc import Iterable

from engine_worker.backend.llama.bindings import (
    AdapterPointer,
    Bindings,
    ContextPointer,
    ModelPointer,
)
from engine_worker.backend.llama.log import LlamaLog
from gpufc.adapters import AdapterFile, Adapters
from gpufc.errors import DecodeFailed, ModelLoadError

LoadedAdapters = dict[str, AdapterPointer]
"""By name. llama.cpp frees them with their model."""


def load_adapters(
    bindings: Bindings, log: LlamaLog, model: ModelPointer, files: Iterable[AdapterFile]
) -> LoadedAdapters:
    """Load adapters for a model. Raises `ModelLoadError` for one that does not fit it."""
    found: LoadedAdapters = {}
    for file in files:
        log.clear()
        adapter = bindings.llama_adapter_lora_init(model, os.fsencode(file.path))
        if not adapter:
            raise ModelLoadError(
                f"the adapter {file.name!r} ({file.path}) cannot be loaded:"
                f" {log.last_error() or 'llama.cpp gives no reason'}"
            )
        if bindings.llama_adapter_get_alora_n_invocation_tokens(adapter):
            # it would apply from a certain token on only
            raise ModelLoadError(f"the adapter {file.name!r} is an activated one (aLoRA)")
        found[file.name] = adapter
    return found


class AppliedAdapters:
    """The adapters of a context. Nothing is done while they stay the same."""

    def __init__(self, bindings: Bindings, context: ContextPointer, loaded: LoadedAdapters) -> None:
        self._lc, self._context, self._loaded = bindings, context, loaded
        self._applied: Adapters = ()

    def apply(self, adapters: Adapters) -> None:
        """Compute with these from the next batch on. Raises `DecodeFailed`."""
        if adapters == self._applied:
            return
        n = len(adapters)
        pointers = (ctypes.POINTER(ctypes.c_void_p) * n)(
            *(self._loaded[use.name] for use in adapters)
        )
        scales = (ctypes.c_float * n)(*(use.scale for use in adapters))
        if self._lc.llama_set_adapters_lora(self._context, pointers, n, scales):
            raise DecodeFailed(f"llama.cpp does not apply the adapters {adapters}")
        self._applied = adapters
