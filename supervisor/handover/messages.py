"""The messages between two fronts while one takes over from the other. Pure.

    old front                                   new front
    Estate, descriptors         ──▶             read, checked; links opened for the workers
                                ◀──             Willing                      or Unwilling
    Go                          ──▶             the workers are the new front's; no way back
                                ◀──             Attached(worker) …
                                ◀──             Serving: it accepts connections itself
    (end of file)               ──▶             the old one has ended

Each message is one packet of msgpack with a typed decoder. Before `Go` the new front changes
nothing that the old one needs, and either may simply end. The old front's sequences use `relay.py`.
"""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from gpufc.config import ModelConfig
from gpufc.errors import LinkError
from gpufc.ids import Epoch, WorkerName
from supervisor.dispatch.ledger import ModelTotals
from supervisor.fleet.inheritance import Holdings

VERSION = 4
"""Version of these messages. A new front refuses an estate of another version, and the old front
goes on. Version 1 had one model, version 2 no totals by model, version 3 no end words."""

MAX_PACKET_BYTES = 128 * 1024
"""Below the smallest buffer of a unix socket, so that a send never waits."""


class Origins(Struct, frozen=True, kw_only=True):
    """The sources of the old front's configuration: the new front reads them again. `flags` maps
    keys to the flags that were given at start. `models` are the sections of the running workers."""

    flags: dict[str, Any]
    file: str | None
    models: dict[str, ModelConfig]


class Estate(Struct, frozen=True, kw_only=True, tag=True):
    """Everything that the new front cannot find by itself. `protocol` is the workers' protocol
    version. `relayed` maps each model to the epoch by which the old front addresses its sequences.

    Descriptors come with it: the relay, the runtime folder's lock, standard output and error, the
    listeners, then the pidfd and boot pipe of each worker, and its end word if it is in `watched`.
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
    watched: frozenset[WorkerName]

    def __repr__(self) -> str:
        """Leaves out the configuration."""
        return f"Estate(version={self.version}, pid={self.pid}, workers={len(self.fleet.workers)})"


class EstateHead(Struct, frozen=True, kw_only=True, tag="Estate"):
    """The fields of an estate of every version. The others are decoded once these fit."""

    version: int
    protocol: int


class Go(Struct, frozen=True, tag=True):
    """The workers were told to attach. There is no way back.

    `totals` are dispatch's counters by model. They never go down while the service lives.
    `drains_in_s`: a front that an operator drains refuses new requests after so long, 0 for now;
    None for one that takes them.
    """

    totals: dict[str, ModelTotals]
    drains_in_s: float | None = None


class Attachment(Struct, frozen=True, kw_only=True):
    """The link at which a worker shall attach, and its new epoch."""

    worker: WorkerName
    successor: Epoch
    endpoint: str
    token: str

    def __repr__(self) -> str:
        """Leaves out the token."""
        return f"Attachment({self.worker!r}, {self.successor}, {self.endpoint!r})"


class Willing(Struct, frozen=True, tag=True):
    """Everything is prepared; the new front waits for `Go`."""

    attachments: tuple[Attachment, ...]


class Unwilling(Struct, frozen=True, tag=True):
    """The new front cannot take over, and ends."""

    reason: str


class Attached(Struct, frozen=True, tag=True):
    """The worker serves the new front."""

    worker: WorkerName
    pid: int


class Serving(Struct, frozen=True, tag=True):
    """The new front accepts connections and control commands."""

    addresses: tuple[str, ...]


FromOld = Estate | Go
FromNew = Willing | Unwilling | Attached | Serving

_encoder = msgspec.msgpack.Encoder()
_head = msgspec.msgpack.Decoder(EstateHead)
_from_old: msgspec.msgpack.Decoder[FromOld] = msgspec.msgpack.Decoder(FromOld)
_from_new: msgspec.msgpack.Decoder[FromNew] = msgspec.msgpack.Decoder(FromNew)

T = TypeVar("T")


def encode(message: FromOld | FromNew) -> bytes:
    """Encode one packet. Raises `LinkError` if it is too large."""
    data = _encoder.encode(message)
    if len(data) > MAX_PACKET_BYTES:
        raise LinkError(f"a handover message of {len(data)} bytes is over {MAX_PACKET_BYTES}")
    return data


def decode_head(data: bytes) -> EstateHead:
    """Decode the versions of an estate. Raises `LinkError`."""
    return _decode(_head, data)


def decode_from_old(data: bytes) -> FromOld:
    """Decode the old front's packet. Raises `LinkError`."""
    return _decode(_from_old, data)


def decode_from_new(data: bytes) -> FromNew:
    """Decode the new front's packet. Raises `LinkError`."""
    return _decode(_from_new, data)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise LinkError(f"undecodable handover message of {len(data)} bytes: {err}") from err
