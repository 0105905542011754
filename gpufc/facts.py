"""What a worker obtained when it loaded its model: the one list of facts, for both processes.

The backend makes a `ModelFacts`, `Ready` carries it to the front, `WorkerStatus` shows it. A new
fact is a field here and a value in each backend.
"""

from enum import StrEnum

from msgspec import Struct

MAX_SEQUENCES = 256
"""llama.cpp's limit of sequences in one context (`LLAMA_MAX_SEQ`), and that of the boot message."""


Metadata = dict[str, bool | int | float | str | tuple[int | float | bool, ...]]
"""Entries of a model file's header, by key."""


class EngineDevice(Struct, frozen=True, array_like=True):
    """A ggml device as the worker sees it. `kind` is ggml's: cpu, gpu, igpu, accel. The bytes of
    its memory are 0 where they are not known: a worker does not ask devices that it does not use.
    """

    name: str
    description: str
    kind: str
    memory_free_bytes: int
    memory_total_bytes: int


class Confined(Struct, frozen=True):
    """What keeps a worker from doing more than it must, by part; `missing` has a reason for each
    part that is not in force."""

    in_force: tuple[str, ...] = ()
    missing: dict[str, str] = {}

    def joined(self, other: "Confined") -> "Confined":
        """Both together. A part that either has in force and the other lacks counts as missing."""
        missing = self.missing | other.missing
        parts = dict.fromkeys((*self.in_force, *other.in_force))
        return Confined(tuple(part for part in parts if part not in missing), missing)


class Pooling(StrEnum):
    """How the vectors of an input's tokens become one: their mean, the first or the last token's.

    `RANK` models make no embedding: they score a query with a document.
    """

    MEAN = "mean"
    CLS = "cls"
    LAST = "last"
    RANK = "rank"


class ModelFacts(Struct, frozen=True, kw_only=True):
    """The loaded model, its KV cache and its placement, as obtained and not as configured.

    | field | meaning |
    | --- | --- |
    | `fingerprint` | equal for two workers only if a replay may move between them |
    | `n_ctx` | tokens that one request may use |
    | `kv_cells` | cells of the cache; 0 for a recurrent model, which has none |
    | `cell_bytes` | memory of one cell, in all layers |
    | `n_threads` | CPU threads that compute a prompt |
    | `unified` | sequences share the cells; else each sequence has its share of them |
    | `n_sequences` | KV sequences of the context, at least one for each running request |
    | `batch_tokens`, `max_outputs` | limits of one `decode`: its tokens, its rows of logits |
    | `can_cut` | false for recurrent and hybrid models: a state is reused whole or not at all |
    | `one_a_pass` | several sequences in one pass would get wrong logits |
    | `asynchronous` | a device computes while the process does something else |
    | `computes_beside` | a CPU with a free core computes passes beside the engine thread |
    | `device_bytes` | memory that model and cache occupy on GPUs, with a draft model's |
    | `bytes_by_device` | the same memory by GPU; empty without one |
    | `template_error` | why the chat template cannot be used: chats are refused |
    | `generates` | false for a model that only embeds or ranks |
    | `embedding_size` | numbers of an embedding; 0 where there are none |
    | `embedding_tokens` | tokens of the longest input of an embedding or a score |
    | `adapters` | names of the LoRA adapters that a request may choose |
    | `can_infill` | the model has fill-in-the-middle tokens |
    | `metadata` | the short entries of the model file's header |
    | `confined` | what keeps the worker from doing more than it must |
    | `modified_at` | when the model file was last changed, unix seconds; 0 if unknown |
    """

    fingerprint: str
    architecture: str
    n_ctx: int
    n_ctx_train: int
    kv_cells: int
    n_sequences: int
    batch_tokens: int
    max_outputs: int
    n_vocab: int
    n_layers: int
    n_gpu_layers: int
    cell_bytes: int = 0
    n_threads: int = 1
    device_bytes: int = 0
    bytes_by_device: dict[str, int] = {}
    n_params: int
    model_bytes: int
    unified: bool
    can_cut: bool
    one_a_pass: bool = False
    asynchronous: bool = False
    chat_template: str | None
    bos_text: str
    eos_text: str
    devices: tuple[EngineDevice, ...] = ()
    system_info: str = ""
    template_error: str = ""
    generates: bool = True
    embedding_size: int = 0
    embedding_tokens: int = 0
    pooling: Pooling = Pooling.MEAN
    adapters: tuple[str, ...] = ()
    can_infill: bool = False
    metadata: Metadata = {}
    modified_at: float = 0.0
    confined: Confined = Confined()
    computes_beside: bool = False

    @property
    def wholly_on_device(self) -> bool:
        """Whether all layers are on GPUs, so that a few more tokens hardly prolong a step."""
        return self.asynchronous and self.n_gpu_layers >= self.n_layers

    def __repr__(self) -> str:
        """Short: the chat template and the system's description would fill a log."""
        return f"ModelFacts({self.architecture}, {self.fingerprint[:12]}, n_ctx={self.n_ctx})"
