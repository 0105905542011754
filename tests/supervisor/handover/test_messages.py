"""An estate of another release is told apart by its versions, whatever else it holds."""

import msgspec
import pytest

from gpufc.errors import LinkError, StartError
from gpufc.ids import WorkerName
from gpufc.protocol import PROTOCOL_VERSION
from supervisor.fleet.followed import Lent
from supervisor.handover import taker
from supervisor.handover.giver import fitting
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


@pytest.mark.parametrize(("room", "n_words"), [(6, 2), (5, 0), (4, 0)])
def test_end_words_are_left_out_where_there_is_no_room_for_them(room: int, n_words: int) -> None:
    lent = {WorkerName(f"m-{n}"): Lent(10 * n, 10 * n + 1, 10 * n + 2) for n in range(2)}
    found = fitting(lent, room)
    assert {name: (one.pidfd, one.boot_write) for name, one in found.items()} == {
        name: (one.pidfd, one.boot_write) for name, one in lent.items()
    }
    assert sum(one.end_word is not None for one in found.values()) == n_words
