"""Down: the messages of the front. Imperatives."""

from typing import Annotated

from msgspec import Meta

from gpufc.adapters import MAX_ADAPTERS, Adapters
from gpufc.config import Replay
from gpufc.constraint import Constraint
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol.link import Message
from gpufc.protocol.prompts import EmbeddingInput, Prompt
from gpufc.protocol.wishes import (
    AS_IT_CAME,
    NO_RULES,
    Batching,
    LogprobsWanted,
    SamplerState,
    StopStrings,
    TokenRules,
    Tokens,
)
from gpufc.sampling import SamplingParams


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


class Generate(Message, frozen=True):
    """Run one sequence. `choice` numbers the choices of one client's request.

    Random numbers are a function of (seed, choice, position). `max_tokens` counts all generated
    tokens, including `tokens`; None means until the context is full. Only sequences of one `scope`
    share cached prefixes. `spelt` are control tokens that the answer's text shows. `adapters` are
    applied to all of its tokens. `sampler_state` is that of the last `Delta`. `prediction` may be
    like the answer; it changes the speed only. A sequence that `yields` is of a principal that
    comes after the others.
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
    yields: bool = False


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
