"""What holds for the link as a whole: its version, its limits, the base of all messages."""

from msgspec import Struct

from gpufc.ids import Epoch

PROTOCOL_VERSION = 7

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest message that either side accepts. A body of 8 MiB, tokenized, stays below it."""

HEARTBEAT_S = 0.25
"""Time between two heartbeats of the worker's IO thread."""


class Message(Struct, frozen=True, array_like=True, tag=True):
    """The base of all messages."""

    epoch: Epoch
