"""The part of llama-cpp-python's bindings that the adapter uses, typed; and ggml's functions, which
the bindings lack. ggml's API is that of ggml/include/ggml.h and ggml-backend.h.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NewType, Protocol

POINTER, INT, INT64, SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t
TEXT = ctypes.c_char_p

ModelPointer = NewType("ModelPointer", int)
ContextPointer = NewType("ContextPointer", int)
MemoryPointer = NewType("MemoryPointer", int)
VocabularyPointer = NewType("VocabularyPointer", int)
AdapterPointer = Any
SamplerPointer = NewType("SamplerPointer", int)

Parameters = Any
"""A ctypes structure of parameters, as a function `llama_…_default_params` returns it."""

Signatures = Mapping[str, tuple[Any, Sequence[Any]]]
"""The result type and the argument types of each function."""


class ModelBindings(Protocol):
    """llama.cpp's models."""

    def llama_backend_init(self) -> None: ...
    def llama_print_system_info(self) -> bytes: ...
    def llama_max_devices(self) -> int: ...
    def llama_progress_callback(self, function: Callable[[float, Any], bool], /) -> Any: ...
    def llama_model_default_params(self) -> Parameters: ...
    def llama_model_load_from_splits(
        self, paths: Any, n_paths: int, params: Parameters, /
    ) -> ModelPointer | None: ...
    def llama_model_free(self, model: ModelPointer, /) -> None: ...
    def llama_model_is_diffusion(self, model: ModelPointer, /) -> bool: ...
    def llama_model_has_encoder(self, model: ModelPointer, /) -> bool: ...
    def llama_model_has_decoder(self, model: ModelPointer, /) -> bool: ...
    def llama_model_is_recurrent(self, model: ModelPointer, /) -> bool: ...
    def llama_model_is_hybrid(self, model: ModelPointer, /) -> bool: ...
    def llama_model_n_ctx_train(self, model: ModelPointer, /) -> int: ...
    def llama_model_n_layer(self, model: ModelPointer, /) -> int: ...
    def llama_model_n_swa(self, model: ModelPointer, /) -> int: ...
    def llama_model_n_params(self, model: ModelPointer, /) -> int: ...
    def llama_model_chat_template(
        self, model: ModelPointer, name: bytes | None, /
    ) -> bytes | None: ...
    def llama_model_get_vocab(self, model: ModelPointer, /) -> VocabularyPointer: ...
    def llama_adapter_lora_init(
        self, model: ModelPointer, path: bytes, /
    ) -> AdapterPointer | None: ...
    def llama_adapter_get_alora_n_invocation_tokens(self, adapter: AdapterPointer, /) -> int: ...


class ContextBindings(Protocol):
    """llama.cpp's contexts."""

    def llama_context_default_params(self) -> Parameters: ...
    def llama_init_from_model(
        self, model: ModelPointer, params: Parameters, /
    ) -> ContextPointer | None: ...
    def llama_free(self, context: ContextPointer, /) -> None: ...
    def llama_set_adapters_lora(
        self, context: ContextPointer, adapters: Any, n: int, scales: Any, /
    ) -> int: ...
    def llama_n_ctx(self, context: ContextPointer, /) -> int: ...
    def llama_n_ctx_seq(self, context: ContextPointer, /) -> int: ...
    def llama_n_seq_max(self, context: ContextPointer, /) -> int: ...
    def llama_n_batch(self, context: ContextPointer, /) -> int: ...
    def llama_n_threads(self, context: ContextPointer, /) -> int: ...
    def llama_n_threads_batch(self, context: ContextPointer, /) -> int: ...
    def llama_set_n_threads(
        self, context: ContextPointer | None, n_threads: int, n_threads_batch: int, /
    ) -> None: ...


class VocabularyBindings(Protocol):
    """llama.cpp's vocabularies."""

    LLAMA_VOCAB_TYPE_NONE: int
    LLAMA_VOCAB_TYPE_WPM: int
    LLAMA_TOKEN_ATTR_RSTRIP: int
    LLAMA_TOKEN_ATTR_LSTRIP: int
    LLAMA_TOKEN_ATTR_USER_DEFINED: int
    LLAMA_TOKEN_ATTR_UNKNOWN: int
    LLAMA_TOKEN_ATTR_CONTROL: int

    def llama_vocab_type(self, vocabulary: VocabularyPointer, /) -> int: ...
    def llama_vocab_n_tokens(self, vocabulary: VocabularyPointer, /) -> int: ...
    def llama_vocab_is_eog(self, vocabulary: VocabularyPointer, token: int, /) -> bool: ...
    def llama_vocab_bos(self, vocabulary: VocabularyPointer, /) -> int: ...
    def llama_vocab_eos(self, vocabulary: VocabularyPointer, /) -> int: ...
    def llama_vocab_get_attr(self, vocabulary: VocabularyPointer, token: int, /) -> int: ...
    def llama_vocab_get_text(self, vocabulary: VocabularyPointer, token: int, /) -> bytes: ...
    def llama_tokenize(
        self,
        vocabulary: VocabularyPointer,
        text: bytes,
        n_bytes: int,
        tokens: Any,
        capacity: int,
        add_special: bool,
        parse_special: bool,
        /,
    ) -> int: ...
    def llama_token_to_piece(
        self,
        vocabulary: VocabularyPointer,
        token: int,
        buffer: Any,
        length: int,
        n_stripped: int,
        special: bool,
        /,
    ) -> int: ...


class SamplerBindings(Protocol):
    """llama.cpp's samplers. The attributes are ctypes structures and callback types."""

    llama_sampler_i: Any
    llama_sampler_i_name: Any
    llama_sampler_i_apply: Any
    llama_sampler_i_backend_init: Any
    llama_sampler_i_backend_apply: Any
    llama_sampler_seq_config: Any

    def llama_sampler_chain_default_params(self) -> Parameters: ...
    def llama_sampler_chain_init(self, params: Parameters, /) -> SamplerPointer: ...
    def llama_sampler_chain_add(self, chain: SamplerPointer, sampler: Any, /) -> None: ...
    def llama_sampler_init(self, interface: Any, context: Any, /) -> Any: ...
    def llama_sampler_free(self, sampler: SamplerPointer, /) -> None: ...


class EmbeddingBindings(ContextBindings, Protocol):
    """llama.cpp's embeddings, and the computing of batches for them."""

    llama_batch: Any
    ggml_backend_sched_eval_callback: Any

    def llama_get_memory(self, context: ContextPointer | None, /) -> MemoryPointer | None: ...
    def llama_memory_seq_rm(
        self, memory: MemoryPointer, sequence: int, start: int, end: int, /
    ) -> bool: ...
    def llama_encode(self, context: ContextPointer | None, batch: Any, /) -> int: ...
    def llama_decode(self, context: ContextPointer | None, batch: Any, /) -> int: ...
    def llama_get_embeddings(self, context: ContextPointer | None, /) -> Any: ...
    def llama_get_embeddings_seq(self, context: ContextPointer | None, sequence: int, /) -> Any: ...
    def llama_model_n_embd_out(self, model: ModelPointer, /) -> int: ...
    def llama_model_n_cls_out(self, model: ModelPointer, /) -> int: ...


class Bindings(
    ModelBindings,
    EmbeddingBindings,
    VocabularyBindings,
    SamplerBindings,
    Protocol,
):
    """The module `llama_cpp.llama_cpp` as loading and the finders use it. Only `backend` imports
    the module, and passes it on. An enum's values are read by `constant`."""


def constant(bindings: Bindings, name: str) -> int:
    """The value of one of llama.cpp's enums, such as `LLAMA_SPLIT_MODE_NONE`."""
    value: int = getattr(bindings, name)
    return value


def library_of(bindings: Any) -> ctypes.CDLL:
    """The loaded library, through which ggml's symbols are found. The bindings keep it private."""
    library: ctypes.CDLL = bindings._lib
    return library


def bind(library: ctypes.CDLL, signatures: Signatures) -> bool:
    """Declare functions of `library`, or of one that it is linked with. False if one is missing."""
    try:
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError:
        return False
    return True
