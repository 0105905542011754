"""The messages of a GPUFabric control server, in wire order.

The layout is GPUFabric's `common/src/lib.rs`. Fields stand in the order in which they are sent. The
width of a number is a part of its type (`codec.py` reads it). `COMMANDS` has the variants of each
generation by their index.
"""

from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct


def _unsigned(n_bytes: int) -> Meta:
    return Meta(ge=0, extra={"bytes": n_bytes})


U8 = Annotated[int, Meta(ge=0, le=255, extra={"bytes": 1})]
U16 = Annotated[int, Meta(ge=0, le=65_535, extra={"bytes": 2})]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1, extra={"bytes": 4})]
U64 = Annotated[int, _unsigned(8)]
U128 = Annotated[int, _unsigned(16)]
I32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, extra={"bytes": 4, "signed": True})]
F32 = float
Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
"""Sixteen raw bytes."""
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class OsType(IntEnum):
    """Never log in as `NONE`: the control server panics."""

    MACOS = 0
    WINDOWS = 1
    LINUX = 2
    ANDROID = 3
    IOS = 4
    NONE = 5


class EngineType(IntEnum):
    """The index on the wire, which is another number than that of the server's database."""

    OLLAMA = 0
    VLLM = 1
    TENSOR_RT = 2
    ONNX = 3
    LLAMA = 4
    NONE = 5


class OutputPhase(IntEnum):
    """`ANALYSIS` is shown as reasoning; everything else as the answer."""

    UNKNOWN = 0
    ANALYSIS = 1
    FINAL = 2


class DownloadStatus(IntEnum):
    PENDING = 0
    DOWNLOADING = 1
    COMPLETED = 2
    FAILED = 3


class P2PTransport(IntEnum):
    TCP = 0
    UDP = 1


class P2PCandidateType(IntEnum):
    HOST = 0
    SRFLX = 1
    RELAY = 2


class P2PConnectionType(IntEnum):
    DIRECT = 0
    RELAY = 1
    TURN = 2


class SystemInfo(Struct, frozen=True):
    """Usages are in percent, network counts in bytes."""

    cpu_usage: U8
    memory_usage: U8
    disk_usage: U8
    network_rx: U64
    network_tx: U64


class DevicesInfo(Struct, frozen=True):
    """Up to eight devices in lanes: device i is byte i of a `U64` and 16-bit lane i of a `U128`."""

    num: U16
    pod_id: U16
    total_tflops: U16
    memtotal_gb: U16
    port: U16
    ip: U32
    os_type: OsType
    engine_type: EngineType
    usage: U64
    mem_usage: U64
    power_usage: U64
    temp: U64
    vendor_id: U128
    device_id: U128
    memsize_gb: U128
    powerlimit_w: U128


class PodModel(Struct, frozen=True):
    """A model that the server wants a pod to serve."""

    pod_id: U16
    model_name: str | None
    download_url: str | None
    checksum: str | None
    expected_size: U64 | None


class Model(Struct, frozen=True):
    id: str
    object: str
    created: U64
    owned_by: str


class ChatMessage(Struct, frozen=True):
    role: str
    content: str


class P2PCandidate(Struct, frozen=True):
    candidate_type: P2PCandidateType
    transport: P2PTransport
    addr: str
    priority: U32


class Command(Struct, frozen=True):
    """The base of all messages."""


class RequestNewProxyConn(Command, frozen=True):
    """From the server: open a connection for one of its users."""

    proxy_conn_id: Id


class NewProxyConn(Command, frozen=True):
    """To the server's proxy port, as the first and only message of a connection."""

    proxy_conn_id: Id


class Login(Command, frozen=True):
    """To the server, first. The `client_id` is the only credential: a secret."""

    client_id: Id
    version: U32
    os_type: OsType
    auto_models: bool
    system_info: SystemInfo
    device_memtotal_gb: U32
    device_total_tflops: U32
    devices_info: list[DevicesInfo]


class LoginResult(Command, frozen=True):
    success: bool
    pods_model: list[PodModel]
    error: str | None


class Heartbeat(Command, frozen=True):
    """To the server. Exactly one `DevicesInfo` with 1 to 8 devices, or the server loses track."""

    client_id: Id
    system_info: SystemInfo
    device_count: U16
    device_memtotal_gb: U32
    device_total_tflops: U32
    devices_info: list[DevicesInfo]


class PullModelResult(Command, frozen=True):
    """From the server: the answer to each `ModelStatus`."""

    pods_model: list[PodModel]
    error: str | None


class ModelStatus(Command, frozen=True):
    client_id: Id
    models: list[Model]
    auto_models_device: list[DevicesInfo]


class InferenceTask(Command, frozen=True):
    task_id: str
    prompt: str
    max_tokens: U32
    temperature: F32
    top_k: U32
    top_p: F32
    repeat_penalty: F32
    repeat_last_n: I32
    min_keep: U32


class ChatInferenceTask(Command, frozen=True):
    task_id: str
    model: str
    messages: list[ChatMessage]
    max_tokens: U32
    temperature: F32
    top_k: U32
    top_p: F32
    repeat_penalty: F32
    repeat_last_n: I32
    min_keep: U32


class CancelInference(Command, frozen=True):
    task_id: str


class InferenceResult(Command, frozen=True):
    """Known for completeness: results are sent as chunks."""

    task_id: str
    success: bool
    result: str | None
    error: str | None
    execution_time_ms: U64
    prompt_tokens: U32
    completion_tokens: U32


class InferenceResultChunk(Command, frozen=True):
    """A part of a task's answer. `seq` counts from 0; token counts are cumulative. The last chunk
    of a task, whatever its end, is `done`."""

    task_id: str
    seq: U32
    delta: str
    phase: OutputPhase
    done: bool
    error: str | None
    prompt_tokens: U32
    completion_tokens: U32
    analysis_tokens: U32
    final_tokens: U32


class ModelDownloadProgress(Command, frozen=True):
    client_id: Id
    model_name: str
    downloaded_bytes: U64
    total_bytes: U64
    percentage: F32
    speed_bps: U64
    status: DownloadStatus
    error: str | None


class P2PConnectionRequest(Command, frozen=True):
    source_client_id: Id
    target_client_id: Id
    connection_id: Id


class P2PConnectionConfig(Command, frozen=True):
    peer_id: Id
    connection_id: Id
    stun_urls: list[str]
    turn_urls: list[str]
    turn_username: str
    turn_password: str
    data_plane_secret: Bytes32
    expires_at: U64
    force_tls: bool


class P2PCandidates(Command, frozen=True):
    source_client_id: Id
    target_client_id: Id
    connection_id: Id
    candidates: list[P2PCandidate]


class P2PDataPlaneEnvelope(Command, frozen=True):
    connection_id: Id
    seq: U64
    timestamp: U64
    payload: bytes
    tag: Bytes32


class P2PInferenceRequest(Command, frozen=True):
    connection_id: Id
    task_id: str
    model: str | None
    prompt: str
    max_tokens: U32
    temperature: F32
    top_k: U32
    top_p: F32
    repeat_penalty: F32
    repeat_last_n: I32
    min_keep: U32


class P2PInferenceChunk(Command, frozen=True):
    connection_id: Id
    task_id: str
    seq: U32
    delta: str
    phase: OutputPhase
    done: bool
    error: str | None
    analysis_tokens: U32
    final_tokens: U32


class P2PInferenceDone(Command, frozen=True):
    connection_id: Id
    task_id: str
    prompt_tokens: U32
    completion_tokens: U32
    total_tokens: U32
    analysis_tokens: U32
    final_tokens: U32


class P2PCancelInference(Command, frozen=True):
    connection_id: Id
    task_id: str


class P2PConnectionInfo(Command, frozen=True):
    peer_id: Id
    peer_addrs: list[str]
    stun_result: str | None
    connection_id: Id


class P2PConnectionEstablished(Command, frozen=True):
    peer_id: Id
    connection_id: Id
    connection_type: P2PConnectionType


class P2PConnectionFailed(Command, frozen=True):
    peer_id: Id
    connection_id: Id
    error: str


COMMANDS: tuple[tuple[type[Command], ...], ...] = (
    (
        RequestNewProxyConn,
        NewProxyConn,
        Login,
        LoginResult,
        Heartbeat,
        PullModelResult,
        ModelStatus,
        InferenceTask,
        ChatInferenceTask,
        CancelInference,
        InferenceResult,
        InferenceResultChunk,
        ModelDownloadProgress,
    ),
    (
        P2PConnectionRequest,
        P2PConnectionConfig,
        P2PCandidates,
        P2PDataPlaneEnvelope,
        P2PInferenceRequest,
        P2PInferenceChunk,
        P2PInferenceDone,
        P2PCancelInference,
        P2PConnectionInfo,
        P2PConnectionEstablished,
        P2PConnectionFailed,
    ),
)
"""The variants of V1 and V2, each at its index."""
