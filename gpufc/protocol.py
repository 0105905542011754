"""Every message between the front and an engine worker. Imperatives go down, facts come up.

One frozen struct for each message, tagged by its first array element; one union and one typed
decoder for each direction (`gpufc/wire.py`). Every message carries the worker's epoch: the receiver
drops a message of another epoch.

The life of one sequence (`request`) on the link:

    front                                     worker
    Prepare(prompt)                 ──▶       template, tokenize, check
                                    ◀──       Prepared(tokens)                  or Refused
    Generate(prompt_tokens, tokens) ──▶       wait, prefill, decode, …
                                    ◀──       Step(started, deltas)  …          or Finished
    Cancel                          ──▶       between two steps
                                    ◀──       Finished("cancelled")

`Generate` carries the tokens that were generated already: none at first, some on a replay. The
first token of the next `Delta` has position `len(Generate.tokens)`. Exactly one terminal message
ends a sequence: `Refused`, `Finished`, or a `Delta` with `finish` set.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.adapters import MAX_ADAPTERS, Adapters
from gpufc.chat import ChatPrompt
from gpufc.config import ModelConfig, Replay
from gpufc.constraint import Constraint
from gpufc.facts import ModelFacts
from gpufc.ids import Epoch, RequestId, RequestNo, WorkerName
from gpufc.packed import ID_BYTES, unpacked
from gpufc.sampling import SamplingParams

PROTOCOL_VERSION = 7

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest message that either side accepts. A body of 8 MiB, tokenized, stays below it."""

HEARTBEAT_S = 0.25
"""Time between two heartbeats of the worker's IO thread."""

MAX_TOP_LOGPROBS = 256
"""More than any client may ask for, and fewer than any vocabulary has."""

MAX_RULED_TOKENS = 1024

MOST_LATER = 10_000
"""Sequences that may overtake another one because a policy wants it."""

MIN_CHUNK = 8
"""A smaller piece of a prompt costs a step nearly as much, and gets nowhere."""

Tokens = tuple[int, ...]
StopStrings = Annotated[tuple[str, ...], Meta(max_length=256)]
SamplerState = Annotated[tuple[float, ...], Meta(max_length=8)]
"""The state of a sampler that has one, such as mirostat's mu. It is a function of the tokens chosen
and of their logits. A replay cannot make those again, so the state is logged with the tokens."""


class FinishReason(StrEnum):
    """The worker's reasons for the end of a sequence. Each dialect of the front has its own words
    for the end of an answer."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class EnginePhase(StrEnum):
    """The engine thread's current work, which it records before it begins."""

    LOADING = "loading"
    IDLE = "idle"
    PREFILL = "prefill"
    DECODE = "decode"


class Message(Struct, frozen=True, array_like=True, tag=True):
    """The base of all messages."""

    epoch: Epoch


# prompts


class TextPrompt(Struct, frozen=True, array_like=True, tag=True):
    """Plain text. `add_special` adds BOS and EOS if the model wants them. `parse_special` reads the
    text of control tokens, such as `<|im_end|>`, as control tokens."""

    text: str
    add_special: bool = True
    parse_special: bool = True


class TokenPrompt(Struct, frozen=True, array_like=True, tag=True):
    """Token ids, used as they are. The worker refuses ids outside the vocabulary."""

    tokens: Tokens


class ContextFile(Struct, frozen=True, array_like=True):
    """A file whose text stands before the code to complete."""

    name: str
    text: str


class InfillPrompt(Struct, frozen=True, array_like=True, tag=True):
    """Text with a gap between `prefix` and `suffix`, which the answer fills.

    The worker writes it with the model's fill-in-the-middle tokens, and refuses it, naming `param`,
    where the model has none. Control tokens in the texts are read as text.
    """

    prefix: str
    suffix: str
    files: tuple[ContextFile, ...] = ()
    param: str = "suffix"


Prompt = TextPrompt | TokenPrompt | ChatPrompt | InfillPrompt


class PairPrompt(Struct, frozen=True, array_like=True, tag=True):
    """A query and a document that a reranker scores together."""

    query: str
    document: str


EmbeddingInput = TextPrompt | TokenPrompt | PairPrompt


# down: front to worker


class Prepare(Message, frozen=True):
    """Turn a prompt into tokens. Answered by `Prepared` or `Refused`.

    `reserve` is how many tokens the request wants to generate; what exceeds the room that the
    prompt leaves is cut. A prompt that leaves no room for one is refused. None: nothing is to be
    generated, the tokens are only counted, and a prompt of any length will do. `constraint` is
    compiled, so that one that cannot be enforced is refused.
    """

    request: RequestNo
    prompt: Prompt
    reserve: Annotated[int, Meta(ge=0)] | None = 0
    constraint: Constraint | None = None


class TokenRules(Struct, frozen=True, array_like=True, omit_defaults=True):
    """vLLM's rules for an answer's tokens.

    A token of `stop` ends the answer as an end token does. Unless `allowed` is empty, no other
    token is generated. Before `min_tokens` no end token is, and no stop string counts. With
    `keeps_stop` the text has the stop string that ended it.
    """

    stop: Annotated[Tokens, Meta(max_length=MAX_RULED_TOKENS)] = ()
    allowed: Annotated[Tokens, Meta(max_length=MAX_RULED_TOKENS)] = ()
    min_tokens: Annotated[int, Meta(ge=0)] = 0
    keeps_stop: bool = False


NO_RULES = TokenRules()


class LogprobsWanted(Struct, frozen=True, array_like=True, omit_defaults=True):
    """The log probabilities that a request wants: of each generated token and the `n_top` best ones
    in its place.

    They are the model's, before masks, biases and sampling; with `after_sampling` those of the
    distribution that the token was drawn from. With `prompt` the prompt's tokens have theirs too.
    """

    n_top: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    after_sampling: bool = False
    prompt: bool = False


class Batching(Struct, frozen=True, array_like=True, omit_defaults=True):
    """When a sequence is computed, as a policy of an operator wants it.

    It counts as if it had come `later` by so many sequences, or earlier if negative. Beside running
    streams a step computes at most `chunk_tokens` of its prompt; None: as many as the engine wants.
    """

    later: Annotated[int, Meta(ge=-MOST_LATER, le=MOST_LATER)] = 0
    chunk_tokens: Annotated[int, Meta(ge=MIN_CHUNK)] | None = None


AS_IT_CAME = Batching()


class Generate(Message, frozen=True):
    """Run one sequence. `choice` numbers the choices of one client's request.

    Random numbers are a function of (seed, choice, position). `max_tokens` counts all generated
    tokens, including `tokens`; None means until the context is full. Only sequences of one `scope`
    share cached prefixes. `spelt` are control tokens that the answer's text shows. `adapters` are
    applied to all of its tokens. `sampler_state` is that of the last `Delta`. `prediction` may be
    like the answer; it changes the speed only.
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
    spelt: tuple[str, ...] = ()
    constraint: Constraint | None = None
    adapters: Annotated[Adapters, Meta(max_length=MAX_ADAPTERS)] = ()
    logprobs: LogprobsWanted | None = None
    rules: TokenRules = NO_RULES
    sampler_state: SamplerState = ()
    prediction: Tokens = ()
    batching: Batching = AS_IT_CAME


class Cancel(Message, frozen=True):
    """Stop working on a sequence. Answered by `Finished`, unless it has ended already.

    A `Prepare` or `Detokenize` of that number is dropped, and no answer follows.
    """

    request: RequestNo


class Detokenize(Message, frozen=True):
    """Ask for the bytes of each token list. Answered by `Detokenized`, or `Refused`."""

    request: RequestNo
    sequences: tuple[Tokens, ...]


class Embed(Message, frozen=True):
    """Compute the embedding of each input, or the score of each pair. Answered by `Embedded`, or
    `Refused`.

    `truncate` cuts inputs that are too long; else they are refused. `dimensions` keeps so many
    numbers of each embedding. `Cancel` drops it, and no answer follows.
    """

    request: RequestNo
    inputs: Annotated[tuple[EmbeddingInput, ...], Meta(min_length=1)]
    truncate: bool = False
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class ExportKv(Message, frozen=True):
    """Write at most `limit_bytes` of computed KV into an empty memory file.

    Process `pid` lends the file, which it has open as `fd` (`gpufc/lending.py`). Answered by
    `KvMoved`. Sequences keep running."""

    pid: int
    fd: int
    limit_bytes: int


class ImportKv(Message, frozen=True):
    """Read KV from a sealed memory file that another worker of the same fingerprint has written.

    Answered by `KvMoved`."""

    pid: int
    fd: int


class Shutdown(Message, frozen=True):
    """End the process with exit code 0. Running sequences are dropped."""


class Attach(Message, frozen=True):
    """Let another front take this worker over.

    The worker drops its sequences, keeps their KV as prefixes and leaves this link silently. It
    says hello and ready at `endpoint` under the epoch `successor`, so that no message of the old
    link can be taken for one of the new link."""

    successor: Epoch
    endpoint: str
    token: str

    def __repr__(self) -> str:
        """Without the token, for logs."""
        return f"Attach({self.epoch} to {self.successor}, endpoint={self.endpoint!r})"


ToWorker = (
    Prepare | Generate | Cancel | Detokenize | Embed | ExportKv | ImportKv | Shutdown | Attach
)


# up: worker to front


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
    another machine has another clock, so it asks for ages only."""

    engine: EngineStatus
    clock: float
    prepare: PrepareStatus = PrepareStatus()

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


# the boot message, which does not go over the link


class Boot(Struct, frozen=True):
    """The first message to a worker, over its boot pipe (`gpufc/wire.py` frames it).

    The pipe stays open for the front's lifetime: its end of file means that the front is gone. A
    spare is a worker that has not received its boot message yet.
    """

    epoch: Epoch
    worker: WorkerName
    endpoint: str
    token: str
    model: ModelConfig
    n_sequences: Annotated[int, Meta(ge=1, le=256)]
    log_level: str = "info"
    log_format: str = "plain"
    within: tuple[str, ...] = ()
    """The folders and files that the model's files must lie in, by real paths; empty for any."""

    def __repr__(self) -> str:
        """Without the token, for logs and tracebacks."""
        return f"Boot(epoch={self.epoch}, worker={self.worker!r}, endpoint={self.endpoint!r})"
