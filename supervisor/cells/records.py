"""The records of durable requests, as they stand in the shared store. Pure.

Each request has a subject of its own, and each run of a front has one for the tokens of all its
requests:

    GROUP.request.NAME   Opened, Claimed …, Finished
    GROUP.log.RUN        Batch …, Closed

A request belongs to the run of the last `Opened` or `Claimed`. A run's log has nothing behind
`Closed`. A record that is larger than a message stands in several messages (`split`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from gpufc.adapters import Adapters
from gpufc.config import Replay
from gpufc.constraint import Constraint
from gpufc.errors import LinkError
from gpufc.ids import RequestId
from gpufc.protocol import (
    FinishReason,
    LogprobsWanted,
    Prompt,
    SamplerState,
    TokenLogprobs,
    TokenRules,
    Tokens,
)
from gpufc.sampling import SamplingParams
from supervisor.dispatch.durable import DurableKey
from supervisor.dispatch.request import GenerationRequest, ReadingOf

VERSION = 1
"""Of these records. A front leaves requests of another version alone."""

MAX_RECORD_BYTES = 256 << 20
"""The largest record that is read."""

FIRST, LAST = 1, 2
"""Bits of a message's first byte: whether a record begins with it, and ends with it."""


class Accepted(Struct, frozen=True, array_like=True):
    """A `GenerationRequest` without its reading, which the client's request says anew."""

    id: RequestId
    model: str
    prompts: tuple[Prompt, ...]
    sampling: SamplingParams
    created: int
    n: Annotated[int, Meta(ge=1)]
    max_tokens: int | None
    stop: tuple[str, ...]
    cache_prompt: bool
    replay: Replay
    constraint: Constraint | None
    adapters: Adapters
    logprobs: LogprobsWanted | None
    rules: TokenRules
    prediction: Tokens

    @classmethod
    def of(cls, request: GenerationRequest) -> "Accepted":
        return cls(*(getattr(request, name) for name in cls.__struct_fields__))

    def request(self, reading: ReadingOf) -> GenerationRequest:
        """The request again."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return GenerationRequest(**fields, reading=reading)


class Opened(Struct, frozen=True, array_like=True, tag=True):
    """The first record of a request: it is durable from here on.

    `n_bytes` and `digest` are of the client's body. `is_plain`: all of its text is the answer, so
    that it can begin without its client.
    """

    version: int
    run: str
    principal: str
    key: str
    digest: bytes
    n_bytes: int
    scope: str
    is_plain: bool
    accepted: Accepted


class Claimed(Struct, frozen=True, array_like=True, tag=True):
    """Another run goes on with the request."""

    run: str


class PromptGain(Struct, frozen=True, array_like=True):
    """A prompt as it was prepared. `spelt` and `constraint` are those of its answers' reading;
    `has_watch`: the reading ends an answer itself, which needs the client's request."""

    index: int
    tokens: Tokens
    opening: str
    fingerprint: str | None
    spelt: tuple[str, ...] = ()
    constraint: Constraint | None = None
    has_watch: bool = False


class ChoiceGain(Struct, frozen=True, array_like=True, omit_defaults=True):
    """What one sequence has gained, as in `StreamLog`. `at` is the number of tokens before."""

    index: int
    at: int
    tokens: Tokens
    texts: tuple[str, ...]
    sampler_state: SamplerState = ()
    n_cached: int | None = None
    finish: FinishReason | None = None
    by_end_token: bool = False
    stopped_by: int | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()


class Gain(Struct, frozen=True, array_like=True, omit_defaults=True):
    """What one request has gained. `order` are entries of `DurableRequest`, of which `at` came
    before. `tags` are new; `tags_since`: the last position before each of them. A front of before
    that field leaves it out."""

    name: str
    at: int
    order: tuple[tuple[int, int], ...] = ()
    choices: tuple[ChoiceGain, ...] = ()
    prompts: tuple[PromptGain, ...] = ()
    tags: tuple[str, ...] = ()
    tags_since: tuple[int, ...] = ()


class Batch(Struct, frozen=True, array_like=True, tag=True):
    """The gains of a run's requests since its batch before; `number` counts a run's batches from 1.
    `ended` requests have no more gains."""

    number: int
    gains: tuple[Gain, ...]
    ended: tuple[str, ...] = ()


class Closed(Struct, frozen=True, array_like=True, tag=True):
    """The run may write no more: `by` has taken that right from it, or the run has left itself."""

    by: str


class Failure(Struct, frozen=True, array_like=True):
    """An error that is the answer, as a `RequestError` crosses the workers' link."""

    code: str
    message: str
    param: str | None = None


class Finished(Struct, frozen=True, array_like=True, tag=True):
    """The whole answer; `ended_at` is unix time in seconds."""

    ended_at: float
    gain: Gain
    error: Failure | None = None


OfRequest = Opened | Claimed | Finished
OfLog = Batch | Closed

_encoder = msgspec.msgpack.Encoder()
_of_request: msgspec.msgpack.Decoder[OfRequest] = msgspec.msgpack.Decoder(OfRequest)
_of_log: msgspec.msgpack.Decoder[OfLog] = msgspec.msgpack.Decoder(OfLog)

T = TypeVar("T")


def name_of(key: DurableKey) -> str:
    """A request's name in subjects. Keys and principals cannot be read from it."""
    text = f"{len(key.principal)}:{key.principal}{key.key}"
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def encode(record: OfRequest | OfLog) -> bytes:
    """The record's bytes."""
    return _encoder.encode(record)


def decode_of_request(data: bytes) -> OfRequest:
    """Raises `LinkError`."""
    return _decoded(_of_request, data)


def decode_of_log(data: bytes) -> OfLog:
    """Raises `LinkError`."""
    return _decoded(_of_log, data)


def _decoded(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise LinkError(f"undecodable record of {len(data)} bytes: {err}") from err


def split(data: bytes, most: int) -> list[bytes]:
    """The messages of a record, each of at most `most` bytes."""
    step = max(1, most - 1)
    starts = range(0, max(1, len(data)), step)
    return [
        bytes([FIRST * (at == 0) + LAST * (at + step >= len(data))]) + data[at : at + step]
        for at in starts
    ]


def joined(messages: Iterable[bytes]) -> Iterator[bytes]:
    """The records in messages. One that was broken off is left out: its writer has died.

    Raises `LinkError` for a record beyond `MAX_RECORD_BYTES`.
    """
    parts: list[bytes] = []
    n_bytes = 0
    for message in messages:
        flags = message[0] if message else 0
        if flags & FIRST:
            parts, n_bytes = [], 0
        parts.append(message[1:])
        n_bytes += len(message)
        if n_bytes > MAX_RECORD_BYTES:
            raise LinkError("a record is larger than any that a front writes")
        if flags & LAST:
            yield b"".join(parts)
            parts, n_bytes = [], 0


class Life(Struct, frozen=True):
    """A request as its records tell: the runs that it belonged to, the present one last."""

    opened: Opened
    runs: tuple[str, ...]
    finished: Finished | None = None


def life_of(records: Sequence[OfRequest]) -> Life | None:
    """None if the records do not begin with an `Opened` of this version."""
    if not records or not isinstance(records[0], Opened) or records[0].version != VERSION:
        return None
    runs = [records[0].run, *(one.run for one in records if isinstance(one, Claimed))]
    ends = [one for one in records if isinstance(one, Finished)]
    return Life(records[0], tuple(runs), ends[-1] if ends else None)
