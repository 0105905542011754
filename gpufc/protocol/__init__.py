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

from gpufc.protocol.boot import Boot
from gpufc.protocol.from_worker import (
    Delta,
    Detokenized,
    Embedded,
    Embedding,
    EngineFailed,
    EnginePhase,
    EngineStatus,
    Finished,
    FromWorker,
    Heartbeat,
    Hello,
    KvMoved,
    LoadFailed,
    Loading,
    Logprob,
    Prepared,
    PrepareStatus,
    Preparing,
    Ready,
    Refused,
    Started,
    Step,
    TokenLogprobs,
)
from gpufc.protocol.link import (
    HEARTBEAT_S,
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    Message,
)
from gpufc.protocol.prompts import (
    ContextFile,
    EmbeddingInput,
    InfillPrompt,
    PairPrompt,
    Prompt,
    TextPrompt,
    TokenPrompt,
)
from gpufc.protocol.to_worker import (
    Attach,
    Cancel,
    Detokenize,
    Embed,
    ExportKv,
    Generate,
    ImportKv,
    Prepare,
    Shutdown,
    ToWorker,
)
from gpufc.protocol.wishes import (
    AS_IT_CAME,
    MAX_RULED_TOKENS,
    MAX_TOP_LOGPROBS,
    MIN_CHUNK,
    MOST_LATER,
    NO_RULES,
    Batching,
    FinishReason,
    LogprobsWanted,
    SamplerState,
    StopStrings,
    TokenRules,
    Tokens,
)

__all__ = [
    "AS_IT_CAME",
    "HEARTBEAT_S",
    "MAX_MESSAGE_BYTES",
    "MAX_RULED_TOKENS",
    "MAX_TOP_LOGPROBS",
    "MIN_CHUNK",
    "MOST_LATER",
    "NO_RULES",
    "PROTOCOL_VERSION",
    "Attach",
    "Batching",
    "Boot",
    "Cancel",
    "ContextFile",
    "Delta",
    "Detokenize",
    "Detokenized",
    "Embed",
    "Embedded",
    "Embedding",
    "EmbeddingInput",
    "EngineFailed",
    "EnginePhase",
    "EngineStatus",
    "ExportKv",
    "FinishReason",
    "Finished",
    "FromWorker",
    "Generate",
    "Heartbeat",
    "Hello",
    "ImportKv",
    "InfillPrompt",
    "KvMoved",
    "LoadFailed",
    "Loading",
    "Logprob",
    "LogprobsWanted",
    "Message",
    "PairPrompt",
    "Prepare",
    "PrepareStatus",
    "Prepared",
    "Preparing",
    "Prompt",
    "Ready",
    "Refused",
    "SamplerState",
    "Shutdown",
    "Started",
    "Step",
    "StopStrings",
    "TextPrompt",
    "ToWorker",
    "TokenLogprobs",
    "TokenPrompt",
    "TokenRules",
    "Tokens",
]
