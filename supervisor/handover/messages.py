"""What two fronts say to each other while one takes over from the other. Pure.

    old front                                   new front
    Estate, descriptors         ──▶             read, checked; links opened for the workers
                                ◀──             Willing                      or Unwilling
    Go                          ──▶             the workers are ours; nobody can go back
                                ◀──             Attached(worker) …
                                ◀──             Serving: it accepts connections itself
    (end of file)               ──▶             the old one has ended

One packet each, msgpack through typed decoders. Until `Go` the new front changes nothing that the
old one needs, and either may simply end. The old front's sequences go another way (`relay.py`).
"""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from gpufc.config import ModelConfig
from gpufc.errors import LinkError
from gpufc.ids import Epoch, WorkerName
from supervisor.dispatch.ledger import RequestCounters, TokenCounters
from supervisor.fleet.inheritance import Holdings

VERSION = 1
"""Of these messages. They are between two releases of gpufc: a new front refuses an estate of a
version that it does not know, and the old one goes on."""

MAX_PACKET_BYTES = 128 * 1024
"""Below the least buffer of a unix socket, so that sending never waits."""


class Totals(Struct, frozen=True, kw_only=True):
    """Counters of dispatch, which never go down while there is a front."""

    requests: RequestCounters
    tokens: TokenCounters


class Origins(Struct, frozen=True, kw_only=True):
    """Where the old front's configuration came from: the new one reads it there again. `flags`
    are those that were given at start, by key."""

    flags: dict[str, Any]
    file: str | None
    model: ModelConfig


class Estate(Struct, frozen=True, kw_only=True, tag=True):
    """Everything that the new front cannot find by itself. `protocol` is what the workers speak;
    `relayed` names the epoch under which the old front will speak of each model's sequences.

    With it come descriptors: the relay, the runtime folder's lock, standard output and error, the
    listeners, then pidfd and boot pipe of each worker.
    """

    version: int
    protocol: int
    pid: int
    runtime_dir: str
    origins: Origins
    started_at: float
    n_listeners: int
    fleet: Holdings
    relayed: dict[str, Epoch]

    def __repr__(self) -> str:
        """Without the configuration."""
        return f"Estate(version={self.version}, pid={self.pid}, workers={len(self.fleet.workers)})"


class Go(Struct, frozen=True, tag=True):
    """The workers have been told to attach. There is no way back."""

    totals: Totals


class Attachment(Struct, frozen=True, kw_only=True):
    """Where a worker shall attach, and as what."""

    worker: WorkerName
    successor: Epoch
    endpoint: str
    token: str

    def __repr__(self) -> str:
        """Without the token."""
        return f"Attachment({self.worker!r}, {self.successor}, {self.endpoint!r})"


class Willing(Struct, frozen=True, tag=True):
    """Everything is prepared. The new front waits."""

    attachments: tuple[Attachment, ...]


class Unwilling(Struct, frozen=True, tag=True):
    """The new front cannot do it, and ends."""

    reason: str


class Attached(Struct, frozen=True, tag=True):
    """This worker serves the new front."""

    worker: WorkerName
    pid: int


class Serving(Struct, frozen=True, tag=True):
    """The new front accepts connections, and operators' commands."""

    addresses: tuple[str, ...]


FromOld = Estate | Go
FromNew = Willing | Unwilling | Attached | Serving

_encoder = msgspec.msgpack.Encoder()
_from_old: msgspec.msgpack.Decoder[FromOld] = msgspec.msgpack.Decoder(FromOld)
_from_new: msgspec.msgpack.Decoder[FromNew] = msgspec.msgpack.Decoder(FromNew)

T = TypeVar("T")


def encode(message: FromOld | FromNew) -> bytes:
    """One packet. Raises `LinkError` if it is larger than one may be."""
    data = _encoder.encode(message)
    if len(data) > MAX_PACKET_BYTES:
        raise LinkError(f"a handover message of {len(data)} bytes is over {MAX_PACKET_BYTES}")
    return data


def decode_from_old(data: bytes) -> FromOld:
    """What the old front sent. Raises `LinkError`."""
    return _decode(_from_old, data)


def decode_from_new(data: bytes) -> FromNew:
    """What the new front sent. Raises `LinkError`."""
    return _decode(_from_new, data)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise LinkError(f"undecodable handover message of {len(data)} bytes: {err}") from err
