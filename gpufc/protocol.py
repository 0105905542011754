"""Every message between the front and an engine worker. Imperatives go down, facts come up.

One frozen struct for each message, tagged by its first array element; one union and one typed
decoder for each direction (`gpufc/wire.py`). Every message carries the worker's epoch: whoever
receives one of another epoch drops it.

The life of one sequence (`request`) on the link:

    front                                     worker
    Prepare(prompt)                 ──▶       template, tokenize, check
                                    ◀──       Prepared(tokens)                  or Refused
    Generate(prompt_tokens, tokens) ──▶       wait, prefill, decode, …
                                    ◀──       Step(started, deltas)  …          or Finished
    Cancel                          ──▶       between two steps
                                    ◀──       Finished("cancelled")

`Generate` carries the tokens that the request already has: none at first, some on a replay. The
first token of the next `Delta` has position `len(Generate.tokens)`. Exactly one terminal message
ends a sequence: `Refused`, `Finished`, or a `Delta` with `finish` set.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config import ModelConfig, Replay
from gpufc.ids import Epoch, RequestId, RequestNo, WorkerName
from gpufc.sampling import SamplingParams

PROTOCOL_VERSION = 1

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest message that either side accepts. A body of 8 MiB, tokenized, stays below it."""

HEARTBEAT_S = 0.25
"""How often the worker's IO thread says that it is alive."""

Tokens = tuple[int, ...]
StopStrings = Annotated[tuple[str, ...], Meta(max_length=256)]


class FinishReason(StrEnum):
    """The worker's reasons for the end of a sequence. Each dialect of the front has its own words
    for the end of an answer."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class EnginePhase(StrEnum):
    """What the engine thread is doing, as it writes itself before it does it."""

    LOADING = "loading"
    IDLE = "idle"
    PREFILL = "prefill"
    DECODE = "decode"


class Message(Struct, frozen=True, array_like=True, tag=True):
    """The base of all messages."""

    epoch: Epoch


# what a prompt can be


class ChatMessage(Struct, frozen=True, array_like=True, omit_defaults=True):
    """One turn of a conversation, its content parts already joined into one text."""

    role: str
    content: str
    name: str | None = None


class TextPrompt(Struct, frozen=True, array_like=True, tag=True):
    """Plain text. `add_special` adds the model's BOS (and EOS) where the model wants them;
    `parse_special` reads control tokens' text, such as `<|im_end|>`, as those tokens."""

    text: str
    add_special: bool = True
    parse_special: bool = True


class TokenPrompt(Struct, frozen=True, array_like=True, tag=True):
    """Token ids, used as they are. The worker refuses ids outside the vocabulary."""

    tokens: Tokens


class ChatPrompt(Struct, frozen=True, array_like=True, tag=True):
    """A conversation, to be rendered by the model's own chat template."""

    messages: tuple[ChatMessage, ...]
    add_generation_prompt: bool = True


Prompt = TextPrompt | TokenPrompt | ChatPrompt


# down: front to worker


class Prepare(Message, frozen=True):
    """Turn a prompt into tokens. `reserve` is how many more the request wants to generate:
    prompt + reserve over the context is refused here, before anything waits for it."""

    request: RequestNo
    prompt: Prompt
    reserve: Annotated[int, Meta(ge=0)] = 0


class Generate(Message, frozen=True):
    """Run one sequence. `choice` numbers it among those of its client's request, and is part of
    what its random numbers are a function of: (seed, choice, position).

    `max_tokens` counts all generated tokens, those in `tokens` included; None means until the
    context is full. `scope` names those who may share cached prefixes with each other.
    """

    request: RequestNo
    request_id: RequestId
    choice: Annotated[int, Meta(ge=0)]
    prompt_tokens: Annotated[Tokens, Meta(min_length=1)]
    sampling: SamplingParams
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    stop: StopStrings = ()
    tokens: Tokens = ()
    replay: Replay = Replay.FAST
    cache_prompt: bool = True
    scope: str = ""


class Cancel(Message, frozen=True):
    """Stop working on a sequence. Answered by `Finished`, unless it has ended already."""

    request: RequestNo


class Detokenize(Message, frozen=True):
    """Ask for the bytes of each token list. Answered by `Detokenized`, or `Refused`."""

    request: RequestNo
    sequences: tuple[Tokens, ...]


class ExportKv(Message, frozen=True):
    """Write what is computed into an empty memory file, which lies open in process `pid` as `fd`:
    at most `limit_bytes` of it. Answered by `KvMoved`. What runs goes on meanwhile."""

    pid: int
    fd: int
    limit_bytes: int


class ImportKv(Message, frozen=True):
    """Take over what another worker of the same fingerprint wrote into a memory file, which has
    been sealed since. Answered by `KvMoved`."""

    pid: int
    fd: int


class Shutdown(Message, frozen=True):
    """End the process cleanly, with exit code 0, without finishing what runs."""


class Attach(Message, frozen=True):
    """Another front takes this worker over. It drops what runs (the KV stays, as prefixes), leaves
    this link without a word, and says hello and ready on that one, under the epoch `successor`: so
    nothing that was said to or by the front before can be taken for the new one's."""

    successor: Epoch
    endpoint: str
    token: str

    def __repr__(self) -> str:
        """Without the token, as `Boot`."""
        return f"Attach({self.epoch} to {self.successor}, endpoint={self.endpoint!r})"


ToWorker = Prepare | Generate | Cancel | Detokenize | ExportKv | ImportKv | Shutdown | Attach


# up: worker to front


class Hello(Message, frozen=True):
    """The first message. `token` proves that the peer is the process that was started."""

    protocol: int
    token: str
    pid: int


class Loading(Message, frozen=True):
    """How far the model has been loaded, 0 to 1."""

    fraction: float


class EngineDevice(Struct, frozen=True, array_like=True):
    """A ggml device as the worker sees it. `kind` is ggml's: cpu, gpu, igpu, accel."""

    name: str
    description: str
    kind: str
    memory_free_bytes: int
    memory_total_bytes: int


class Ready(Message, frozen=True):
    """The model is loaded; this is what was really obtained.

    `fingerprint` is equal for two workers only if a replay may move between them. `n_ctx` is
    what one request may use, `kv_cells` what all of them share if the cache is `unified`, else a
    stream each. `device_bytes` is what model and cache have taken of GPUs' memory.
    """

    fingerprint: str
    architecture: str
    n_ctx: int
    n_ctx_train: int
    kv_cells: int
    n_sequences: int
    n_vocab: int
    n_layers: int
    n_gpu_layers: int
    n_params: int
    model_bytes: int
    has_chat_template: bool
    loaded_in_s: float
    devices: tuple[EngineDevice, ...] = ()
    system_info: str = ""
    unified: bool = True
    device_bytes: int = 0


class LoadFailed(Message, frozen=True):
    """The model cannot be served. With `retryable` false, starting again would fail again.

    When memory is what was missing, `needed_bytes` is what it would take and `available_bytes` what
    there was: whoever can free the difference may try again. Both 0 otherwise.
    """

    reason: str
    retryable: bool
    needed_bytes: int = 0
    available_bytes: int = 0


class Prepared(Message, frozen=True):
    """The prompt's token ids, BOS included where the model wants one."""

    request: RequestNo
    prompt_tokens: Tokens


class Refused(Message, frozen=True):
    """Terminal. The request cannot be run; `code` is a `RequestError`'s."""

    request: RequestNo
    code: str
    message: str
    param: str | None = None


class Detokenized(Message, frozen=True):
    """The bytes of each token list, as they were asked for. Not necessarily whole UTF-8."""

    request: RequestNo
    pieces: tuple[bytes, ...]


class Started(Struct, frozen=True, array_like=True):
    """A sequence left the worker's queue; `n_cached` of its tokens were found in the KV cache."""

    request: RequestNo
    n_cached: int


class Delta(Struct, frozen=True, array_like=True, omit_defaults=True):
    """What one sequence gained in one step. `position` is that of the first of `tokens` among
    the generated tokens. `text` is what became fit to be sent: it lags behind the tokens inside
    a character or a possible stop string. With `finish` set, this is terminal."""

    request: RequestNo
    position: int
    tokens: Tokens
    text: str
    finish: FinishReason | None = None


class Step(Message, frozen=True):
    """Everything that one engine step brought. The hot path: one message for all sequences.

    `n_recomputed` counts the tokens of this step that had been computed before (preemption,
    replay).
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
    """The end of an `ExportKv` or `ImportKv`, successful unless `error` says why not."""

    n_sequences: int
    n_tokens: int
    n_bytes: int
    seconds: float
    error: str = ""


class EngineFailed(Message, frozen=True):
    """The engine's state is unknown after this step, and the process is about to end. `requests`
    are those that the fatal batch computed."""

    reason: str
    requests: tuple[RequestNo, ...]


class Heartbeat(Message, frozen=True):
    """Sent by the IO thread every `HEARTBEAT_S`. `phase`, `step`, `step_started` (monotonic
    seconds, the system's clock) and `step_tokens` are the engine thread's own record."""

    phase: EnginePhase
    step: int
    step_started: float
    step_tokens: int
    n_running: int
    n_waiting: int
    kv_cells_used: int


FromWorker = (
    Hello
    | Loading
    | Ready
    | LoadFailed
    | Prepared
    | Refused
    | Detokenized
    | Step
    | Finished
    | KvMoved
    | EngineFailed
    | Heartbeat
)


# the boot message, which does not go over the link


class Boot(Struct, frozen=True):
    """What a worker reads from its boot pipe before anything else (`gpufc/wire.py` frames it).

    The pipe stays open for the front's lifetime: end of file on it means that the front is gone.
    A spare worker is one whose boot message has not been written yet.
    """

    epoch: Epoch
    worker: WorkerName
    endpoint: str
    token: str
    model: ModelConfig
    n_sequences: Annotated[int, Meta(ge=1, le=256)]
    log_level: str = "info"

    def __repr__(self) -> str:
        """Without the token: this is what a log line or a traceback would print."""
        return f"Boot(epoch={self.epoch}, worker={self.worker!r}, endpoint={self.endpoint!r})"
