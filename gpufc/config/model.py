"""A model, its place on the devices and the way in which a worker holds it."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.adapters import MAX_ADAPTERS
from gpufc.config.marks import FLAG, NOW, PATH, SWAP
from gpufc.sampling import SamplingDefaults


class Replay(StrEnum):
    """How a continued sequence feeds the tokens that it has: in one batch, or one by one."""

    FAST = "fast"
    EXACT = "exact"


class BackendKind(StrEnum):
    """`fake` is a scripted engine without a model, for tests and for measuring the front."""

    LLAMA = "llama"
    FAKE = "fake"


class Confinement(StrEnum):
    """How far a worker gives up what it does not need."""

    AUTO = "auto"
    REQUIRED = "required"
    OFF = "off"


class FlashAttention(StrEnum):
    AUTO = "auto"
    ON = "on"
    OFF = "off"


class KvUnified(StrEnum):
    """One KV cache for all sequences; `auto` gives each a stream of its own where they fit."""

    AUTO = "auto"
    TRUE = "true"
    FALSE = "false"


class KvType(StrEnum):
    """How keys or values are stored, by ggml's names."""

    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    Q8_0 = "q8_0"
    Q5_1 = "q5_1"
    Q5_0 = "q5_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"


class SplitMode(StrEnum):
    """How a model is spread over GPUs: not at all, whole layers, or rows of each matrix."""

    NONE = "none"
    LAYER = "layer"
    ROW = "row"


class Speculation(StrEnum):
    """The source of draft tokens, which the next step verifies."""

    NONE = "none"
    NGRAM = "ngram"
    DRAFT = "draft"


class Spread(StrEnum):
    """Where a model's workers run: on the front's machine, or over the machines that joined it."""

    FRONT = "front"
    MACHINES = "machines"


class ModelConfig(Struct, frozen=True, kw_only=True):
    """A model and the way in which a worker holds it."""

    model_path: Annotated[
        str | None,
        Meta(description="GGUF file to serve [default: the demo model]", extra=FLAG | SWAP | PATH),
    ] = None
    model: Annotated[
        Annotated[str, Meta(min_length=1, max_length=200)] | None,
        Meta(
            description="name to serve the model under [default: the file's name]",
            extra=FLAG,
        ),
    ] = None
    aliases: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...],
        Meta(
            max_length=256,
            description="more names that clients may use, such as `claude-*`; `*` is any text",
            extra=NOW,
        ),
    ] = ()
    n_ctx: Annotated[
        int,
        Meta(
            ge=16, le=16_777_216, description="tokens that one request may use", extra=FLAG | SWAP
        ),
    ] = 4096
    n_gpu_layers: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="layers to put on the GPU, if there is one; fewer if they do not fit",
            extra=FLAG | SWAP,
        ),
    ] = 999
    min_gpu_layers: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="fewest layers on the GPU; where fewer fit, the model is not served",
            extra=SWAP,
        ),
    ] = 0
    devices: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="GPUs to use by ggml's names, such as `CUDA0,CUDA1`; `doctor` shows them."
            " `CUDA0;CUDA1` gives the first replica CUDA0, the second one CUDA1, and so on"
            " [default: all]",
            extra=SWAP,
        ),
    ] = None
    split_mode: Annotated[
        SplitMode,
        Meta(description="over several GPUs: none, whole layers, or rows of matrices", extra=SWAP),
    ] = SplitMode.LAYER
    main_gpu: Annotated[
        int,
        Meta(
            ge=0,
            le=255,
            description="GPU of the whole model with split_mode none, from 0",
            extra=SWAP,
        ),
    ] = 0
    tensor_split: Annotated[
        Annotated[str, Meta(pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?){0,127}$")] | None,
        Meta(
            description="parts of the model for each GPU, such as `3,1` [default: by free memory]",
            extra=SWAP,
        ),
    ] = None
    kv_cells: Annotated[
        Annotated[int, Meta(ge=16, le=268_435_456)] | None,
        Meta(
            description="tokens that the KV cache holds over all requests [default: fitted]",
            extra=SWAP,
        ),
    ] = None
    kv_unified: Annotated[
        KvUnified,
        Meta(
            description="one KV cache for all sequences (true), a stream for each (false), or"
            " streams where they fit (auto)",
            extra=SWAP,
        ),
    ] = KvUnified.AUTO
    cache_type_k: Annotated[
        KvType, Meta(description="how the KV cache stores keys", extra=SWAP)
    ] = KvType.F16
    cache_type_v: Annotated[
        KvType,
        Meta(
            description="how the KV cache stores values; fewer than 16 bits need flash attention",
            extra=SWAP,
        ),
    ] = KvType.F16
    batch_tokens: Annotated[
        Annotated[int, Meta(ge=16, le=65_536)] | None,
        Meta(
            description="most tokens that one engine step computes"
            " [default: on a CPU 128, with 16 threads 512; on a GPU 2048, small models 4096;"
            " more for many sequences]",
            extra=SWAP,
        ),
    ] = None
    n_threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(
            description="CPU threads for decoding [default: all cores, of 8 and more all but one;"
            " 1 if GPUs hold all layers]",
            extra=SWAP,
        ),
    ] = None
    n_threads_batch: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(
            description="CPU threads for prompts [default: n_threads, else all cores]", extra=SWAP
        ),
    ] = None
    share_cores: Annotated[
        bool,
        Meta(
            description="compute with fewer CPU threads while other processes use the cores and"
            " that is faster",
            extra=SWAP,
        ),
    ] = True
    flash_attention: Annotated[
        FlashAttention,
        Meta(
            description="flash attention kernels; auto: llama.cpp's choice; on a CPU only for keys"
            " and values in f16 without replay = exact, and for values of fewer than 16 bits",
            extra=SWAP,
        ),
    ] = FlashAttention.AUTO
    cached_sequences: Annotated[
        int,
        Meta(ge=0, le=200, description="finished sequences with KV kept for reuse", extra=SWAP),
    ] = 4
    speculation: Annotated[
        Speculation,
        Meta(
            description="draft tokens ahead: none, ngram (from the sequence's own text), or draft"
            " (by the model of draft_model_path)",
            extra=SWAP,
        ),
    ] = Speculation.NGRAM
    draft_model_path: Annotated[
        str | None,
        Meta(description="GGUF file of a small model with the same vocabulary", extra=PATH | SWAP),
    ] = None
    chat_template: Annotated[
        Annotated[str, Meta(min_length=1, max_length=4096)] | None,
        Meta(
            description="chat template: a Jinja file, or the name of one that the model brings, or"
            " `chatml` [default: the model's own]",
            extra=PATH | SWAP,
        ),
    ] = None
    adapters: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=4096)], ...],
        Meta(
            max_length=MAX_ADAPTERS,
            description="LoRA adapters to load: `NAME=FILE`, or a file, which names it; a request"
            " chooses one by its name in `model`, or by `lora`",
            extra=SWAP,
        ),
    ] = ()
    special_tokens_in_content: Annotated[
        bool,
        Meta(
            description="read control tokens, such as `<|im_end|>`, in messages' contents",
            extra=SWAP,
        ),
    ] = False
    sampling: Annotated[
        SamplingDefaults | None,
        Meta(
            description="table of defaults for requests, under the names of their fields, such as"
            " `{ temperature = 0.7, top_k = 20 }` [default: llama.cpp's]",
            extra=NOW,
        ),
    ] = None
    use_mmap: Annotated[
        bool, Meta(description="map the model file rather than read it", extra=SWAP)
    ] = True
    use_mlock: Annotated[
        bool,
        Meta(description="lock the model in memory, so that it is never swapped out", extra=SWAP),
    ] = False
    model_sha256: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None,
        Meta(
            description="SHA-256 of the model file (the first one of a split model), 64 hex digits;"
            " a file with another one is not loaded [default: none]",
            extra=SWAP,
        ),
    ] = None
    confinement: Annotated[
        Confinement,
        Meta(
            description="files, network and system calls that a worker may use: as few as this"
            " kernel can hold it to (auto), all of that or no worker (required), or any (off)",
            extra=SWAP,
        ),
    ] = Confinement.AUTO
    replicas: Annotated[
        int, Meta(ge=1, le=64, description="workers of this model, which share its requests")
    ] = 1
    spread: Annotated[
        Spread,
        Meta(
            description="where this model's workers run: on the front's machine (front), or over"
            " the machines that joined it (machines)"
        ),
    ] = Spread.FRONT
    local_replicas: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="workers that run on the front's machine although the others are spread",
        ),
    ] = 0
    preload: Annotated[
        bool | None,
        Meta(
            description="load the model at the start, before a request asks for it"
            " [default: the only model is]"
        ),
    ] = None
    keep_alive_s: Annotated[
        Annotated[float, Meta(ge=-1.0, le=31_536_000.0)] | None,
        Meta(
            description="seconds without requests after which the model is unloaded; 0: at once;"
            " -1: never [default: 300; -1 for the only model]",
            extra=NOW,
        ),
    ] = None
    pinned: Annotated[
        bool, Meta(description="load the model at start and never unload it", extra=NOW)
    ] = False
    priority: Annotated[
        int,
        Meta(
            ge=-100,
            le=100,
            description="whose requests get memory first: 1 more is worth 30 s of waiting",
            extra=NOW,
        ),
    ] = 0
    replay: Annotated[
        Replay,
        Meta(
            description="feeding of a continued stream: fast (in a batch) or exact (one by one)",
            extra=NOW,
        ),
    ] = Replay.FAST
    backend: Annotated[
        BackendKind, Meta(description="engine: llama, or fake (scripted, for tests)")
    ] = BackendKind.LLAMA
    fake_script: Annotated[
        str, Meta(max_length=4096, description="faults of the fake engine (for tests)", extra=SWAP)
    ] = ""

    @property
    def weight_files(self) -> tuple[str, ...]:
        """The GGUF files of its models, the served one first; the first part of a split one."""
        paths = (self.model_path, self.draft_model_path)
        return tuple(path for path in paths if path is not None)
