"""Packets with descriptors and framed messages between two fronts."""

import asyncio
import os
import socket
import struct

import pytest

from gpufc.errors import LinkError
from supervisor.handover.frames import Frames
from supervisor.handover.messages import (
    Serving,
    decode_from_new,
    decode_from_old,
    encode,
)
from supervisor.handover.packets import PacketSocket


async def test_a_packet_carries_descriptors_and_the_end_is_seen() -> None:
    ours, theirs = PacketSocket.pair()
    peer = PacketSocket(theirs)
    read, write = os.pipe()
    ours.send(b"take this", [write])
    os.close(write)
    data, (copy,) = peer.receive_now(5.0)
    assert data == b"take this"
    assert not os.get_inheritable(copy)
    os.write(copy, b"through it")
    assert os.read(read, 100) == b"through it"
    os.close(copy)
    assert os.read(read, 100) == b""
    os.close(read)
    peer.send(encode(Serving(("http://x",))))
    assert decode_from_new(await ours.receive()) == Serving(("http://x",))
    peer.close()
    assert await ours.receive() == b""
    with pytest.raises(OSError, match=r"[Bb]roken pipe"):
        ours.send(b"absent")
    ours.close()


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\xa2Go", encode(Serving(()))])
def test_other_bytes_than_messages_are_a_link_error(data: bytes) -> None:
    with pytest.raises(LinkError):
        decode_from_old(data)


class End:
    """One end of a connection, and the frames that it received."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.lost = asyncio.Event()
        self.news = asyncio.Event()

    def on_frame(self, data: bytes) -> None:
        if data == b"break":
            raise LinkError("asked for")
        self.heard.append(data)
        self.news.set()


async def connected() -> tuple[Frames, End, socket.socket]:
    ours, theirs = socket.socketpair()
    end = End()
    frames = await Frames.over(ours, end.on_frame, end.lost.set)
    theirs.setblocking(False)
    return frames, end, theirs


async def test_frames_keep_their_borders_however_they_arrive() -> None:
    frames, end, peer = await connected()
    loop = asyncio.get_running_loop()
    messages = [b"", b"a", b"b" * 70_000, b"end"]
    data = b"".join(struct.pack("!I", len(each)) + each for each in messages)
    for start in range(0, len(data), 997):
        await loop.sock_sendall(peer, data[start : start + 997])
    async with asyncio.timeout(60):
        while len(end.heard) < len(messages):
            end.news.clear()
            await end.news.wait()
    assert end.heard == messages
    frames.write(b"back")
    assert await loop.sock_recv(peer, 100) == b"\0\0\0\x04back"
    peer.close()
    async with asyncio.timeout(60):
        await end.lost.wait()
    frames.write(b"absent")


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x05break"])
async def test_a_broken_frame_ends_the_connection(data: bytes) -> None:
    _, end, peer = await connected()
    await asyncio.get_running_loop().sock_sendall(peer, data)
    async with asyncio.timeout(60):
        await end.lost.wait()
    peer.close()
