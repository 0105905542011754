"""Up: the messages of a worker. Facts."""

from enum import StrEnum

from msgspec import Struct

from gpufc.facts import ModelFacts
from gpufc.ids import RequestNo
from gpufc.packed import ID_BYTES, unpacked
from gpufc.protocol.link import Message
from gpufc.protocol.wishes import FinishReason, SamplerState, Tokens


class Hello(Message, frozen=True):
    """The first message. `token` proves that the peer is the process that was started."""

    protocol: int
    token: str
    pid: int


class Loading(Message, frozen=True):
    """The part of the model that has been loaded, 0 to 1."""

    fraction: float


class Ready(Message, frozen=True):
    """The model is loaded. `loaded_in_s` is the duration of the load."""

    facts: ModelFacts
    loaded_in_s: float


class LoadFailed(Message, frozen=True):
    """The model cannot be served. With `retryable` false, another start would fail too.

    If memory was lacking, `needed_bytes` were needed and `available_bytes` free; else both are 0.
    """

    reason: str
    retryable: bool
    needed_bytes: int = 0
    available_bytes: int = 0


class Prepared(Message, frozen=True):
    """The prompt's token ids (`gpufc.packed`), BOS included where the model wants one. `opening` is
    the end of a conversation's text, control tokens spelt out."""

    request: RequestNo
    packed: memoryview
    opening: str = ""

    def __post_init__(self) -> None:
        if len(self.packed) % ID_BYTES:
            raise ValueError("token ids are cut off")

    @property
    def prompt_tokens(self) -> memoryview:
        """The ids. Nothing is copied."""
        return unpacked(self.packed)


class Refused(Message, frozen=True):
    """Terminal. The request cannot be run; `code` is a `RequestError`'s."""

    request: RequestNo
    code: str
    message: str
    param: str | None = None


class Detokenized(Message, frozen=True):
    """The bytes of each token list, in the request's order. They may split UTF-8 characters."""

    request: RequestNo
    pieces: tuple[bytes, ...]


class Embedding(Struct, frozen=True, array_like=True):
    """One input's result: little-endian float32 of length 1 (L2), or the one score of a pair.
    `n_tokens` of the input were computed."""

    vector: bytes
    n_tokens: int


class Embedded(Message, frozen=True):
    """The results of an `Embed`, in the order of its inputs."""

    request: RequestNo
    embeddings: tuple[Embedding, ...]


class Started(Struct, frozen=True, array_like=True):
    """A sequence left the worker's queue; `n_cached` of its tokens were found in the KV cache."""

    request: RequestNo
    n_cached: int


class Logprob(Struct, frozen=True, array_like=True, gc=False):
    """A token and its log probability, which is None for the first token of a prompt. `piece` are
    its bytes; those of a control token spell it."""

    token: int
    piece: bytes
    logprob: float | None


class TokenLogprobs(Struct, frozen=True, array_like=True, gc=False):
    """One token of a sequence, and the best tokens in its place, the best first.

    `n_chars` counts the characters of text that end with the token, before stop strings are cut
    off: none inside a character.
    """

    token: Logprob
    top: tuple[Logprob, ...]
    n_chars: int


class Delta(Struct, frozen=True, array_like=True, omit_defaults=True):
    """One sequence's gain in one step. With `finish` set, it is terminal.

    `position` is the index of the first of `tokens` among the generated tokens. `text` may be sent
    to the client: it lags behind the tokens inside a character or a possible stop string.
    `by_end_token`: the model has generated an end token, which is not one of `tokens`.
    `stopped_by` is the index in `Generate.stop` of the stop string that ended the sequence.
    `logprobs` are those of `tokens` where the request wants them, and `prompt_logprobs` those of
    the whole prompt, in the delta of position 0. `sampler_state` is that after `tokens`."""

    request: RequestNo
    position: int
    tokens: Tokens
    text: str
    finish: FinishReason | None = None
    by_end_token: bool = False
    stopped_by: int | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    sampler_state: SamplerState = ()

    @property
    def n_generated(self) -> int:
        """The tokens that the model has generated, the end token included."""
        return len(self.tokens) + self.by_end_token


class Step(Message, frozen=True):
    """The result of one engine step, for all its sequences. The hot path.

    `n_recomputed` counts tokens of this step that had been computed before (preemption, replay).
    """

    step: int
    deltas: tuple[Delta, ...]
    started: tuple[Started, ...] = ()
    n_recomputed: int = 0


class Finished(Message, frozen=True):
    """Terminal, outside a step: the sequence was cancelled."""

    request: RequestNo
    reason: FinishReason


class KvMoved(Message, frozen=True):
    """The result of an `ExportKv` or `ImportKv`. `error` is empty if it succeeded."""

    n_sequences: int
    n_tokens: int
    n_bytes: int
    seconds: float
    error: str = ""


class EngineFailed(Message, frozen=True):
    """The engine's state is unknown after this step, and the process will end. `requests` are the
    sequences of the fatal batch."""

    reason: str
    requests: tuple[RequestNo, ...]


class EnginePhase(StrEnum):
    """The engine thread's current work, which it records before it begins."""

    LOADING = "loading"
    IDLE = "idle"
    PREFILL = "prefill"
    DECODE = "decode"


class EngineStatus(Struct, frozen=True, array_like=True):
    """The engine thread's own record of its work, replaced as a whole before each step.

    `step_started` is the monotonic clock of the worker's machine in seconds. Two of them have a
    duration between them; a front gets a step's age from `Heartbeat.age_s`. `n_threads` of the CPU
    computed the last pass.
    """

    phase: EnginePhase = EnginePhase.LOADING
    step: int = 0
    step_started: float = 0.0
    step_tokens: int = 0
    n_running: int = 0
    n_waiting: int = 0
    kv_cells_used: int = 0
    n_threads: int = 0


class Preparing(Struct, frozen=True, array_like=True):
    """A question that a prepare thread is answering. `since` is on the clock of `step_started`."""

    request: RequestNo
    since: float
    n_bytes: int


class PrepareStatus(Struct, frozen=True, array_like=True):
    """The prepare threads' record: the questions in work, the oldest first, and those waiting."""

    in_work: tuple[Preparing, ...] = ()
    n_waiting: int = 0


class Heartbeat(Message, frozen=True):
    """Sent every `HEARTBEAT_S` by the IO thread, with the latest record of the other threads.

    `clock` is the monotonic clock of the worker's machine when the heartbeat was made. A front on
    another machine has another clock, so it asks for ages only. With `holds_lock` a call begins
    that lets no other thread of the worker run, so the next heartbeat may take long."""

    engine: EngineStatus
    clock: float
    prepare: PrepareStatus = PrepareStatus()
    holds_lock: bool = False

    def age_s(self, since: float) -> float:
        """The time from a moment on the worker's clock until this heartbeat was made."""
        return max(0.0, self.clock - since)


FromWorker = (
    Hello
    | Loading
    | Ready
    | LoadFailed
    | Prepared
    | Refused
    | Detokenized
    | Embedded
    | Step
    | Finished
    | KvMoved
    | EngineFailed
    | Heartbeat
)
