"""The messages between a front and its placer: one JSON object a line."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=4096)]
MAX_LINE_BYTES = 64 * 1024


class Order(Struct, frozen=True, tag=True):
    """How many hosts are wanted, and the resources of each by Ray's names (`CPU`, `GPU`, own)."""

    n_hosts: Annotated[int, Meta(ge=0, le=1024)]
    resources: dict[str, float] = {}


class Join(Struct, frozen=True, tag=True):
    """An invitation for one host: the text of a join file. Answers `JoinWanted`, once each."""

    text: Text


class JoinWanted(Struct, frozen=True, tag=True):
    """A host is about to be placed, and has to be able to join."""


class HostRow(Struct, frozen=True):
    """One host that Ray runs or is to run. `node` is empty while it is not placed."""

    slot: int
    node: str = ""
    detail: Text = ""


class Placed(Struct, frozen=True, tag=True):
    """All hosts of now. `trouble` says why hosts are missing, if they are."""

    hosts: tuple[HostRow, ...]
    trouble: Text = ""


class Refusal(Struct, frozen=True, tag=True):
    """The cluster is not safe or not durable. The placer ends; starting it again is of no use."""

    message: Text


ToPlacer = Order | Join
FromPlacer = JoinWanted | Placed | Refusal

_to_placer: "msgspec.json.Decoder[ToPlacer]" = msgspec.json.Decoder(ToPlacer)
_from_placer: "msgspec.json.Decoder[FromPlacer]" = msgspec.json.Decoder(FromPlacer)


def line(message: ToPlacer | FromPlacer) -> bytes:
    """The message as a line."""
    return msgspec.json.encode(message) + b"\n"


def order_of(text: bytes) -> ToPlacer:
    """A line to the placer. Raises `msgspec.MsgspecError`."""
    return _to_placer.decode(text)


def fact_of(text: bytes) -> FromPlacer:
    """A line from the placer. Raises `msgspec.MsgspecError`."""
    return _from_placer.decode(text)
