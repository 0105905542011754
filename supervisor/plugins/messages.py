"""What the front and a plugin's process say to each other, as framed msgpack.

The process answers calls in their order, one after another. `value` is the hook's result as plain
data; the front checks it against the hook's type.
"""

from typing import Any

import msgspec
from msgspec import Struct

MOST_BYTES = 16 * 1024 * 1024
"""A longer message of a plugin is a flood."""


class Call(Struct, frozen=True, array_like=True):
    """`arguments` are those of the hook in `api.Hooks`, by name."""

    no: int
    hook: str
    arguments: dict[str, Any]


class Ready(Struct, frozen=True, array_like=True, tag=True):
    """The plugin is loaded and has these hooks."""

    hooks: tuple[str, ...]


class Unloadable(Struct, frozen=True, array_like=True, tag=True):
    """The plugin cannot be loaded. The process ends."""

    reason: str


class Returned(Struct, frozen=True, array_like=True, tag=True):
    no: int
    value: Any


class Refused(Struct, frozen=True, array_like=True, tag=True):
    """The hook has raised `Refuse`."""

    no: int
    reason: str


class Raised(Struct, frozen=True, array_like=True, tag=True):
    """The hook has raised anything else. For the log, not for clients.

    `places` are the frames and the exception's type, which quote code only. `text` is the
    exception's own, which may quote a request.
    """

    no: int
    places: str
    text: str


FromPlugin = Ready | Unloadable | Returned | Refused | Raised

encode = msgspec.msgpack.encode
decode_call = msgspec.msgpack.Decoder(Call).decode
decode = msgspec.msgpack.Decoder(FromPlugin).decode
