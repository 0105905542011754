"""Frames of the connection between front and host, to bytes and back. Pure.

A frame is one ZeroMQ message part: an epoch of 8 bytes (big-endian), then a payload. Epoch 0 means
a control message of `messages`, as msgpack. Any other epoch means bytes of that worker's link
(`gpufc/wire.py`). A relay does not read them.
"""

import hashlib
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from gpufc.config import ModelConfig
from gpufc.errors import LinkError
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import MAX_MESSAGE_BYTES, Boot
from gpufc.wire import Buffer
from supervisor.cluster.messages import MAX_CONTROL_BYTES, FromHost, HostMessage, ToHost

HEADER_BYTES = 8
MAX_FRAME_BYTES = HEADER_BYTES + MAX_MESSAGE_BYTES

CONTROL = Epoch(0)

LATER_FIELDS = frozenset({"is_awaited"})
"""Fields of `Boot` and `ModelConfig` that are younger than this `HOST_PROTOCOL`. Hosts of a version
before do not know them, so they have no part in a digest while they have their default."""

_CONTROL_HEADER = bytes(HEADER_BYTES)

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_from_host: msgspec.msgpack.Decoder[FromHost] = msgspec.msgpack.Decoder(FromHost)
_to_host: msgspec.msgpack.Decoder[ToHost] = msgspec.msgpack.Decoder(ToHost)


def relayed(epoch: Epoch, payload: Buffer) -> bytes:
    """A frame with bytes of a worker's link. `epoch` is not 0."""
    return b"".join((epoch.to_bytes(HEADER_BYTES), payload))


def control(message: HostMessage) -> bytes:
    """A frame with a control message. Raises `LinkError` if the peer would not accept it."""
    try:
        data = _encoder.encode(message)
    except UnicodeEncodeError as err:  # a path that is not valid UTF-8
        raise LinkError(f"message cannot be encoded: {err.reason}") from err
    if len(data) > MAX_CONTROL_BYTES:
        raise LinkError(f"message of {len(data)} bytes is over the limit of {MAX_CONTROL_BYTES}")
    return _CONTROL_HEADER + data


def split(frame: bytes) -> tuple[Epoch, memoryview]:
    """A frame's epoch and payload; nothing is copied. Raises `LinkError`."""
    if len(frame) < HEADER_BYTES:
        raise LinkError(f"frame of {len(frame)} bytes")
    return Epoch(int.from_bytes(frame[:HEADER_BYTES])), memoryview(frame)[HEADER_BYTES:]


def decode_from_host(payload: Buffer) -> FromHost:
    """A control message of a host. Raises `LinkError`."""
    return _decode(_from_host, payload)


def decode_to_host(payload: Buffer) -> ToHost:
    """A control message of a front. Raises `LinkError`."""
    return _decode(_to_host, payload)


def boot_digest(boot: Boot) -> str:
    """Equal for two boot messages that start equal workers: of the same model and settings.

    Equal also in all versions of one `HOST_PROTOCOL`: a host has computed its own, and an upgraded
    front compares them.
    """
    same = structs.replace(
        boot, epoch=CONTROL, worker=WorkerName(""), endpoint="", token="", is_awaited=False
    )
    told = _told(same)
    told["model"] = _told(same.model)
    return hashlib.sha256(_encoder.encode(told)).hexdigest()[:16]


def _told(settings: Boot | ModelConfig) -> dict[str, Any]:
    """The fields by name, without `LATER_FIELDS` that have their default."""
    told: dict[str, Any] = msgspec.to_builtins(settings)
    for field in structs.fields(settings):
        if field.name in LATER_FIELDS and getattr(settings, field.name) == field.default:
            del told[field.name]
    return told


def _decode(decoder: msgspec.msgpack.Decoder[T], payload: Buffer) -> T:
    if len(payload) > MAX_CONTROL_BYTES:
        raise LinkError(f"message of {len(payload)} bytes is over the limit of {MAX_CONTROL_BYTES}")
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise LinkError(f"undecodable message of {len(payload)} bytes: {err}") from err
