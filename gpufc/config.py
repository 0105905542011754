"""What can be configured: one frozen struct per part of the service.

A key has one name everywhere: `n_ctx` here, `n_ctx` in the TOML file, `GPUFC_N_CTX` in the
environment and, where `flag` is set, `--n-ctx` on the command line. Keys are unique over all
sections, so the TOML file needs tables for models only. A class gets the section that it needs,
never the whole `Config`. Only the fleet and the checks before a start read a model's section.

Type, bounds and description stand in the annotation. `--help`, `config show`, CONFIGURATION.md and
the checks are made from it. `gpufc/settings.py` finds the values. A `secret` value is never shown.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from gpufc.adapters import MAX_ADAPTERS
from gpufc.sampling import SamplingDefaults

FLAG = {"flag": True}
PATH = {"path": True}

DEFAULT_MODEL = "default"
"""The name in `Config.models` of a model that no table of the file names."""


class Standby(StrEnum):
    """How far a spare worker is prepared."""

    NONE = "none"
    WARM = "warm"
    HOT = "hot"


class Replay(StrEnum):
    """How a continued sequence feeds the tokens that it has: in one batch, or one by one."""

    FAST = "fast"
    EXACT = "exact"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class BackendKind(StrEnum):
    """`fake` is a scripted engine without a model, for tests and for measuring the front."""

    LLAMA = "llama"
    FAKE = "fake"


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


class ServerConfig(Struct, frozen=True, kw_only=True):
    """The front's address and its files."""

    host: Annotated[str, Meta(min_length=1, description="address to listen on", extra=FLAG)] = (
        "127.0.0.1"
    )
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="port to listen on; 0 takes a free one",
            extra=FLAG | {"alias": "--local-port"},
        ),
    ] = 8082
    runtime_dir: Annotated[
        str | None,
        Meta(
            description="private folder for sockets, lock and logs, one for each running front"
            " [default: $XDG_RUNTIME_DIR/gpufc, else gpufc-UID in the temporary folder]",
            extra=FLAG | PATH,
        ),
    ] = None
    model_dirs: Annotated[
        str | None,
        Meta(
            description="folders from which models may be loaded over HTTP, separated by `:`"
            " [default: the folder of the model at start]",
            extra=PATH,
        ),
    ] = None
    log_level: Annotated[LogLevel, Meta(description="least level to log", extra=FLAG)] = (
        LogLevel.INFO
    )
    shutdown_timeout_s: Annotated[
        float,
        Meta(ge=0.0, le=86_400.0, description="seconds for running requests to end on stop"),
    ] = 30.0


class AccessConfig(Struct, frozen=True, kw_only=True):
    """The keys of clients, and the encryption of their connections."""

    keys_file: Annotated[
        str | None,
        Meta(
            description="file of access keys, made by `keys add`; then every request needs a key"
            " [default: none; on this machine alone, no key is needed]",
            extra=FLAG | PATH,
        ),
    ] = None
    tls_cert: Annotated[
        str | None,
        Meta(
            description="PEM file of the certificate and its chain; then HTTPS is served"
            " [default: none]",
            extra=FLAG | PATH,
        ),
    ] = None
    tls_key: Annotated[
        str | None,
        Meta(
            description="PEM file of the certificate's private key"
            " [default: in the certificate's file]",
            extra=FLAG | PATH,
        ),
    ] = None
    tls_client_ca: Annotated[
        str | None,
        Meta(
            description="PEM file of the authorities whose certificates clients must have"
            " [default: none; clients need no certificate]",
            extra=PATH,
        ),
    ] = None
    insecure: Annotated[
        bool,
        Meta(
            description="listen beyond this machine without keys or TLS, too",
            extra=FLAG,
        ),
    ] = False


class ModelConfig(Struct, frozen=True, kw_only=True):
    """A model and the way in which a worker holds it."""

    model_path: Annotated[
        str | None,
        Meta(description="GGUF file to serve [default: the demo model]", extra=FLAG | PATH),
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
        ),
    ] = ()
    n_ctx: Annotated[
        int,
        Meta(ge=16, le=16_777_216, description="tokens that one request may use", extra=FLAG),
    ] = 4096
    n_gpu_layers: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="layers to put on the GPU, if there is one; fewer if they do not fit",
            extra=FLAG,
        ),
    ] = 999
    min_gpu_layers: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="fewest layers on the GPU; where fewer fit, the model is not served",
        ),
    ] = 0
    devices: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="GPUs to use by ggml's names, such as `CUDA0,CUDA1`; `doctor` shows them"
            " [default: all]",
        ),
    ] = None
    split_mode: Annotated[
        SplitMode, Meta(description="over several GPUs: none, whole layers, or rows of matrices")
    ] = SplitMode.LAYER
    main_gpu: Annotated[
        int,
        Meta(
            ge=0,
            le=255,
            description="GPU of the whole model with split_mode none, from 0",
        ),
    ] = 0
    tensor_split: Annotated[
        Annotated[str, Meta(pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?){0,127}$")] | None,
        Meta(
            description="parts of the model for each GPU, such as `3,1` [default: by free memory]",
        ),
    ] = None
    kv_cells: Annotated[
        Annotated[int, Meta(ge=16, le=268_435_456)] | None,
        Meta(
            description="tokens that the KV cache holds over all requests [default: fitted]",
        ),
    ] = None
    kv_unified: Annotated[
        KvUnified,
        Meta(
            description="one KV cache for all sequences (true), a stream for each (false), or"
            " streams where they fit (auto)"
        ),
    ] = KvUnified.AUTO
    cache_type_k: Annotated[KvType, Meta(description="how the KV cache stores keys")] = KvType.F16
    cache_type_v: Annotated[
        KvType,
        Meta(description="how the KV cache stores values; fewer than 16 bits need flash attention"),
    ] = KvType.F16
    batch_tokens: Annotated[
        Annotated[int, Meta(ge=16, le=65_536)] | None,
        Meta(
            description="most tokens that one engine step computes"
            " [default: 128 on a CPU; on a GPU 2048, for small models 4096]"
        ),
    ] = None
    n_threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(
            description="CPU threads for decoding [default: all cores; 1 if GPUs hold all layers]"
        ),
    ] = None
    n_threads_batch: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(description="CPU threads for prompts [default: n_threads]"),
    ] = None
    flash_attention: Annotated[
        FlashAttention,
        Meta(description="flash attention kernels; auto: on a GPU that has them, not on a CPU"),
    ] = FlashAttention.AUTO
    cached_sequences: Annotated[
        int,
        Meta(ge=0, le=200, description="finished sequences with KV kept for reuse"),
    ] = 4
    speculation: Annotated[
        Speculation,
        Meta(
            description="draft tokens ahead: none, ngram (from the sequence's own text), or draft"
            " (by the model of draft_model_path)"
        ),
    ] = Speculation.NGRAM
    draft_model_path: Annotated[
        str | None,
        Meta(description="GGUF file of a small model with the same vocabulary", extra=PATH),
    ] = None
    chat_template: Annotated[
        Annotated[str, Meta(min_length=1, max_length=4096)] | None,
        Meta(
            description="chat template: a Jinja file, or the name of one that the model brings, or"
            " `chatml` [default: the model's own]",
            extra=PATH,
        ),
    ] = None
    adapters: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=4096)], ...],
        Meta(
            max_length=MAX_ADAPTERS,
            description="LoRA adapters to load: `NAME=FILE`, or a file, which names it; a request"
            " chooses one by its name in `model`, or by `lora`",
        ),
    ] = ()
    special_tokens_in_content: Annotated[
        bool, Meta(description="read control tokens, such as `<|im_end|>`, in messages' contents")
    ] = False
    sampling: Annotated[
        SamplingDefaults | None,
        Meta(
            description="table of defaults for requests, under the names of their fields, such as"
            " `{ temperature = 0.7, top_k = 20 }` [default: llama.cpp's]"
        ),
    ] = None
    use_mmap: Annotated[bool, Meta(description="map the model file rather than read it")] = True
    use_mlock: Annotated[
        bool, Meta(description="lock the model in memory, so that it is never swapped out")
    ] = False
    replay: Annotated[
        Replay,
        Meta(description="feeding of a continued stream: fast (in a batch) or exact (one by one)"),
    ] = Replay.FAST
    backend: Annotated[
        BackendKind, Meta(description="engine: llama, or fake (scripted, for tests)")
    ] = BackendKind.LLAMA
    fake_script: Annotated[
        str, Meta(max_length=4096, description="faults of the fake engine (for tests)")
    ] = ""


class FleetConfig(Struct, frozen=True, kw_only=True):
    """How workers are started, watched and replaced."""

    restart_limit: Annotated[
        int, Meta(ge=1, le=10_000, description="worker deaths within 60 s that end in `failed`")
    ] = 10
    standby: Annotated[
        Standby, Meta(description="spare worker kept: none, warm (imported), hot (loaded)")
    ] = Standby.WARM
    load_timeout_s: Annotated[
        float, Meta(gt=0.0, le=86_400.0, description="seconds a model may take to load")
    ] = 600.0
    handover_kv_bytes: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="memory for computed KV on its way to a worker's successor of the same"
            " model, in bytes; 0: the successor prefills [default: 1 GiB; 0 on a GPU, which"
            " prefills faster]",
        ),
    ] = None
    recycle_growth_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="anonymous memory that a worker may gain since it was ready, in bytes,"
            " before it is replaced; 0: never",
        ),
    ] = 2 * 1024 * 1024 * 1024


class AdmissionConfig(Struct, frozen=True, kw_only=True):
    """The number of sequences that run and wait. `n` and prompt lists count each sequence."""

    max_concurrent_requests: Annotated[
        int, Meta(ge=1, le=4096, description="sequences that run at once", extra=FLAG)
    ] = 10
    max_queue: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        Meta(
            description="sequences that may wait [default: 8 × max_concurrent_requests]",
        ),
    ] = None

    @property
    def queue_limit(self) -> int:
        """`max_queue`, or its default in terms of `max_concurrent_requests`."""
        return 8 * self.max_concurrent_requests if self.max_queue is None else self.max_queue


class LimitsConfig(Struct, frozen=True, kw_only=True):
    """Limits on clients' requests, applied before the engine sees a request."""

    max_n: Annotated[int, Meta(ge=1, le=256, description="most choices (`n`) of a request")] = 8
    max_prompts: Annotated[int, Meta(ge=1, le=4096, description="most prompts of a request")] = 64
    max_stop: Annotated[int, Meta(ge=0, le=256, description="most stop strings")] = 16
    max_stop_bytes: Annotated[
        int, Meta(ge=1, le=65_536, description="longest stop string, in bytes")
    ] = 256
    max_logit_bias: Annotated[
        int, Meta(ge=0, le=1000, description="most entries of `logit_bias`")
    ] = 1000
    max_top_logprobs: Annotated[
        int, Meta(ge=0, le=256, description="most log probabilities in a token's place")
    ] = 20
    max_body_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 30, description="largest request body, in bytes")
    ] = 8 * 1024 * 1024
    max_bodies_bytes: Annotated[
        int, Meta(ge=1 << 20, le=1 << 40, description="memory for all bodies under way, in bytes")
    ] = 256 * 1024 * 1024
    header_timeout_s: Annotated[
        float, Meta(gt=0.0, le=3600.0, description="seconds to send a request's header")
    ] = 10.0
    body_timeout_s: Annotated[
        float, Meta(gt=0.0, le=3600.0, description="seconds to send a body, plus size over rate")
    ] = 10.0
    body_rate: Annotated[
        int, Meta(ge=1, description="slowest rate of a body, in bytes per second")
    ] = 64 * 1024
    keepalive_timeout_s: Annotated[
        float, Meta(gt=0.0, le=3600.0, description="seconds that an idle connection stays open")
    ] = 30.0
    max_connections_per_address: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most connections of one address")
    ] = 1024
    max_connections: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="most connections in all [default: by the limit of descriptors]"),
    ] = None
    first_byte_s: Annotated[
        float,
        Meta(gt=0.0, le=3600.0, description="seconds until a waiting stream sends its headers"),
    ] = 4.0
    keepalive_comment_s: Annotated[
        float, Meta(gt=0.0, le=3600.0, description="seconds between a silent stream's comments")
    ] = 4.0
    durable_window_s: Annotated[
        float,
        Meta(ge=0.0, le=86_400.0, description="seconds that a durable request's answer is kept"),
    ] = 600.0
    durable_idle_s: Annotated[
        float,
        Meta(gt=0.0, le=86_400.0, description="seconds that a durable request runs unread"),
    ] = 600.0
    max_durable_requests: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most durable requests, finished ones included")
    ] = 1000
    max_durable_bytes: Annotated[
        int,
        Meta(ge=65_536, le=1 << 36, description="memory for durable requests, in bytes"),
    ] = 64 * 1024 * 1024
    max_stored_responses: Annotated[
        int, Meta(ge=0, le=1_000_000, description="most responses remembered for a principal")
    ] = 1000
    max_stored_bytes: Annotated[
        int, Meta(ge=0, le=1 << 36, description="memory for a principal's responses, in bytes")
    ] = 64 * 1024 * 1024


class FabricConfig(Struct, frozen=True, kw_only=True):
    """The GPUFabric network that the front joins. Without `server_addr` it joins none."""

    server_addr: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)] | None,
        Meta(description="GPUFabric control server to take tasks from [default: none]", extra=FLAG),
    ] = None
    control_port: Annotated[
        int, Meta(ge=1, le=65535, description="port of the control server", extra=FLAG)
    ] = 17000
    proxy_port: Annotated[
        int,
        Meta(
            ge=1,
            le=65535,
            description="port of the control server for its users' connections, always TLS",
            extra=FLAG,
        ),
    ] = 17001
    client_id: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="this machine's id in the network, 32 hex digits: its only credential, so"
            " rather use client_id_file",
            extra=FLAG | {"secret": True},
        ),
    ] = None
    client_id_file: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="file with the client id, readable by its owner only", extra=FLAG | PATH),
    ] = None
    control_tls: Annotated[
        bool, Meta(description="TLS to the control port; the proxy port always has it")
    ] = False
    cert_chain_path: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="PEM file of the certificate authorities to trust"
            " [default: those of the system]",
            extra=FLAG | PATH,
        ),
    ] = None
    control_tls_server_name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)] | None,
        Meta(description="name in the server's certificate [default: server_addr]", extra=FLAG),
    ] = None
    control_tls_pin: Annotated[
        Annotated[str, Meta(pattern=r"^(sha256:)?([0-9A-Fa-f]{2}:?){32}$")] | None,
        Meta(
            description="SHA-256 of the server's certificate, 64 hex digits; without"
            " cert_chain_path it replaces the check of chain and name",
        ),
    ] = None
    control_plaintext: Annotated[
        bool,
        Meta(description="allow a control server beyond this machine without control_tls"),
    ] = False
    network_tasks: Annotated[
        Annotated[int, Meta(ge=1, le=4096)] | None,
        Meta(
            description="tasks of the network that run at once [default: max_concurrent_requests]",
        ),
    ] = None
    network_queue: Annotated[
        int, Meta(ge=0, le=65_536, description="tasks of the network that may wait")
    ] = 64
    network_connections: Annotated[
        int, Meta(ge=0, le=4096, description="connections of the network's users at once")
    ] = 64


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration in force. `settings.resolve` makes it.

    `models` has at least one entry, in the order of the file. Its keys are the names of the file's
    tables, not the names that models are served under.
    """

    server: ServerConfig = ServerConfig()
    access: AccessConfig = AccessConfig()
    models: dict[str, ModelConfig] = msgspec.field(
        default_factory=lambda: {DEFAULT_MODEL: ModelConfig()}
    )
    fleet: FleetConfig = FleetConfig()
    admission: AdmissionConfig = AdmissionConfig()
    limits: LimitsConfig = LimitsConfig()
    fabric: FabricConfig = FabricConfig()

    def model_folders(self) -> list[str]:
        """Folders from which models may be loaded over HTTP.

        By default the folders of the models at start, but never the root folder: a container may
        have its model there.
        """
        if self.server.model_dirs is not None:
            return [folder for folder in self.server.model_dirs.split(":") if folder]
        paths = [Path(model.model_path) for model in self.models.values() if model.model_path]
        return list(dict.fromkeys(str(path.parent) for path in paths if path.parents[1:]))
