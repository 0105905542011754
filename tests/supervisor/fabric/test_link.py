"""One connection: frames in pieces, a server that reads nothing, and the close."""

import asyncio

import pytest

from supervisor.fabric import link
from supervisor.fabric.codec import ProtocolError, encode_frame
from supervisor.fabric.link import Link
from supervisor.fabric.messages import CancelInference, ChatInferenceTask, ChatMessage
from supervisor.fabric.trust import Trust
from tests.fakes.control_server import ControlServer
from tests.supervisor.fabric.conftest import fabric

FIRST = ChatInferenceTask("t", "m", [ChatMessage("user", "Hé")], 5, 0.5, 40, 0.5, 1.5, 64, 1)
SECOND = CancelInference("t")


class Unused:
    """A writer that the test does not need."""


def reading() -> tuple[asyncio.StreamReader, Link]:
    reader = asyncio.StreamReader()
    return reader, Link(reader, Unused())  # type: ignore[arg-type]


async def test_frames_are_read_however_they_are_split() -> None:
    data = encode_frame(FIRST) + encode_frame(SECOND)
    for cut in range(len(data) + 1):
        reader, connection = reading()
        both = asyncio.create_task(receive_two(connection))
        reader.feed_data(data[:cut])
        await asyncio.sleep(0)
        reader.feed_data(data[cut:])
        assert await both == [FIRST, SECOND]


async def receive_two(connection: Link) -> list[object]:
    return [await connection.receive(), await connection.receive()]


async def send_for_ever(connection: Link, message: CancelInference) -> None:
    while True:
        await connection.send(message)


async def test_an_end_within_a_frame_is_an_error() -> None:
    data = encode_frame(SECOND)
    for cut in range(len(data)):
        reader, connection = reading()
        reader.feed_data(data[:cut])
        reader.feed_eof()
        with pytest.raises(EOFError):
            await connection.receive()


async def test_a_frame_of_nothing_is_no_message() -> None:
    reader, connection = reading()
    reader.feed_data(bytes(4))
    with pytest.raises(ProtocolError):
        await connection.receive()


async def test_a_server_that_takes_nothing_loses_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "WRITE_S", 0.05)
    accepted: list[asyncio.StreamWriter] = []
    deaf = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
    async with deaf:
        port = deaf.sockets[0].getsockname()[1]
        server = ControlServer()
        server.port = port
        connection = await Link.open(Trust(fabric(server)), port)
        receiving = asyncio.create_task(connection.receive())
        message = CancelInference("x" * 1_000_000)
        sending = asyncio.create_task(send_for_ever(connection, message))
        with pytest.raises((TimeoutError, OSError)):
            await sending
        with pytest.raises((EOFError, OSError)):
            await receiving
        await connection.close()
        for writer in accepted:
            writer.transport.abort()
