"""llama.cpp's bindings as the loader uses them, over GPUs that exist in tests only."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec

from engine_worker.backend.llama.log import LlamaLog
from gpufc.facts import EngineDevice

_ERROR = 4


class FakeLlama:
    """Takes as many layers as it is told, whatever was reckoned before.

    `weights_fit` and `context_fits` are the most layers of which weights and context find device
    memory. `tried` has the layers that were asked for, the output layer not counted; `open` is the
    number of models that were loaded and not freed; `asked` names the devices that were asked for
    their memory. `models` and `contexts` are the parameters that were given.
    """

    def __init__(
        self,
        log: LlamaLog,
        devices: Callable[[int], tuple[EngineDevice, ...]],
        weights_fit: int = 999,
        context_fits: int = 999,
        failure: str = "unable to allocate CUDA0 buffer",
    ) -> None:
        self.tried: list[int] = []
        self.open = 0
        self.asked: set[str] = set()
        self.contexts: list[Any] = []
        self.models: list[Any] = []
        self._log = log
        self._devices = devices
        self._weights_fit, self._context_fits = weights_fit, context_fits
        self._failure = failure
        self._lib = self

    def known_devices(self, _: Any) -> tuple[EngineDevice, ...]:
        """Stands in for `devices.known_devices`."""
        unknown = {"memory_free_bytes": 0, "memory_total_bytes": 0}
        return tuple(msgspec.structs.replace(one, **unknown) for one in self._devices(0))

    def with_memory(self, _: Any, devices: Sequence[EngineDevice]) -> tuple[EngineDevice, ...]:
        """Stands in for `devices.with_memory`."""
        names = [one.name for one in devices]
        self.asked.update(names)
        now = self._devices(self.tried[-1] if self.open else 0)
        return tuple(one for one in now if one.name in names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("LLAMA_"):
            return name
        if name.startswith(("llama_model_is_", "llama_model_has_encoder")):
            return lambda _: False
        if name.startswith("llama_"):
            return lambda *_: None
        raise AttributeError(name)

    def llama_model_default_params(self) -> Any:
        return SimpleNamespace()

    llama_context_default_params = llama_model_default_params

    @staticmethod
    def llama_progress_callback(function: Any) -> Any:
        return function

    def llama_model_load_from_splits(self, _paths: Any, _n: int, params: Any) -> Any:
        n_layers = max(0, params.n_gpu_layers - 1)
        self.tried.append(n_layers)
        self.models.append(params)
        if n_layers > self._weights_fit:
            return self._fail()
        self.open += 1
        params.progress_callback(1.0, None)
        return SimpleNamespace(n_layers=n_layers)

    def llama_init_from_model(self, model: Any, params: Any) -> Any:
        if model.n_layers > self._context_fits:
            return self._fail()
        self.contexts.append(params)
        return params

    def _fail(self) -> None:
        self._log.write(_ERROR, f"{self._failure}\n".encode())

    def llama_model_free(self, _: Any) -> None:
        self.open -= 1

    def llama_model_has_decoder(self, _: Any) -> bool:
        return True

    def llama_vocab_type(self, _: Any) -> str:
        return "LLAMA_VOCAB_TYPE_BPE"

    def llama_vocab_n_tokens(self, _: Any) -> int:
        return 1

    def llama_vocab_bos(self, _: Any) -> int:
        return -1

    llama_vocab_eos = llama_vocab_bos
    llama_vocab_fim_pre = llama_vocab_fim_suf = llama_vocab_fim_mid = llama_vocab_bos
    llama_vocab_fim_rep = llama_vocab_fim_sep = llama_vocab_bos

    def llama_n_ctx(self, context: Any) -> int:
        return int(context.n_ctx)

    llama_n_ctx_seq = llama_n_ctx

    def llama_n_seq_max(self, context: Any) -> int:
        return int(context.n_seq_max)

    def llama_batch(self) -> Any:
        return SimpleNamespace()

    def llama_max_devices(self) -> int:
        return 4

    def llama_n_threads(self, context: Any) -> int:
        return 1

    llama_n_threads_batch = llama_n_threads

    def llama_n_batch(self, context: Any) -> int:
        return int(context.n_batch)

    def llama_print_system_info(self) -> bytes:
        return b"fake"

    def llama_model_n_ctx_train(self, _: Any) -> int:
        return 4096

    def llama_model_n_layer(self, _: Any) -> int:
        return 8

    def llama_model_n_swa(self, _: Any) -> int:
        return 0

    def llama_model_n_params(self, _: Any) -> int:
        return 1
