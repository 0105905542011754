"""An estate of another release is told apart by its versions, whatever else it holds."""

import msgspec
import pytest

from gpufc.errors import LinkError, StartError
from gpufc.protocol import PROTOCOL_VERSION
from supervisor.handover import taker
from supervisor.handover.messages import MAX_PACKET_BYTES, VERSION
from supervisor.handover.packets import PacketSocket

OLDER = {"type": "Estate", "version": 1, "protocol": PROTOCOL_VERSION, "origins": {"model": None}}


def received(estate: dict[str, object]) -> taker.Inheritance:
    ours, theirs = PacketSocket.pair()
    with theirs:
        data = msgspec.msgpack.encode(estate)
        assert len(data) < MAX_PACKET_BYTES
        theirs.send(data)
        try:
            return taker.receive(ours)
        finally:
            ours.close()


@pytest.mark.parametrize(
    "changed", [{}, {"version": VERSION + 1}, {"version": VERSION, "protocol": -1}]
)
def test_another_version_is_one_clear_line(changed: dict[str, object]) -> None:
    with pytest.raises(StartError, match=r"of another release .* `stop` it and `start` this one"):
        received(OLDER | changed)


def test_an_estate_of_this_version_that_cannot_be_read_is_a_link_error() -> None:
    with pytest.raises(LinkError, match="undecodable"):
        received(OLDER | {"version": VERSION})
