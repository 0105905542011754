"""Reading sockets in the event loop."""

from collections.abc import Iterator

import pytest
import zmq

from supervisor.socket_reader import SocketReader


@pytest.fixture
def pair() -> Iterator[tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ends = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    ends[0].bind("inproc://reader")
    ends[1].connect("inproc://reader")
    yield ends
    context.destroy(linger=0)


async def test_a_read_of_all_messages_ends_although_a_peer_never_stops(pair) -> None:  # type: ignore[no-untyped-def]
    mine, peer = pair
    taken: list[bytes] = []

    def take() -> None:
        taken.append(mine.recv())
        peer.send(b"another")

    reader = SocketReader(mine, take)
    peer.send(b"first")
    reader.read_now(100)
    reader.close()
    assert len(taken) == 100
