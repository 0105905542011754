"""Messages to bytes and back: msgpack through typed decoders, bounded in size."""

import os
from functools import partial
from typing import TypeVar

import msgspec

from gpufc.errors import LinkError
from gpufc.framing import HEADER_BYTES, frame, read_frame
from gpufc.protocol import MAX_MESSAGE_BYTES, Boot, FromWorker, Message, ToWorker

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_boot: msgspec.msgpack.Decoder[Boot] = msgspec.msgpack.Decoder(Boot)

T = TypeVar("T")
Buffer = bytes | memoryview

MAX_BOOT_BYTES = 64 * 1024
"""A pipe's default capacity: writing the boot message never waits for its reader."""


def encode(message: Message) -> bytes:
    """One message as msgpack. Raises `LinkError` when it is larger than the peer would accept."""
    data = _encoder.encode(message)
    if len(data) > MAX_MESSAGE_BYTES:
        raise LinkError(f"message of {len(data)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return data


def decode_to_worker(data: Buffer) -> ToWorker:
    """A message of the front. Raises `LinkError`."""
    return _decode(_to_worker, data)


def decode_from_worker(data: Buffer) -> FromWorker:
    """A message of a worker. Raises `LinkError`."""
    return _decode(_from_worker, data)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: Buffer) -> T:
    if len(data) > MAX_MESSAGE_BYTES:
        raise LinkError(f"message of {len(data)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise LinkError(f"undecodable message of {len(data)} bytes: {err}") from err


def write_boot(fd: int, boot: Boot) -> None:
    """Write the boot message to a fresh pipe. Raises `LinkError` or `OSError`."""
    try:
        data = _encoder.encode(boot)
    except UnicodeEncodeError as err:  # a path that is not valid UTF-8
        raise LinkError(f"boot message cannot be encoded: {err.reason}") from err
    if len(data) + HEADER_BYTES > MAX_BOOT_BYTES:
        raise LinkError(f"boot message of {len(data)} bytes does not fit in a pipe")
    os.write(fd, frame(data))


def read_boot(fd: int) -> Boot | None:
    """Wait for the boot message on a pipe. None if the front ended before it wrote one."""
    data = read_frame(partial(os.read, fd), MAX_BOOT_BYTES)
    return None if data is None else _decode(_boot, data)
