"""What is passed from one process to another: activated sockets, packets, frames, notices."""

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpufc.errors import LinkError, StartError
from supervisor.handover import sd
from supervisor.handover.frames import Frames
from supervisor.handover.messages import (
    Attached,
    Go,
    Serving,
    decode_from_new,
    decode_from_old,
    encode,
)
from supervisor.handover.packets import PacketSocket

ACTIVATED = """
import os, socket, sys
sys.path.insert(0, sys.argv[1])
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[2]))
from supervisor.http.server import listeners, urls
found = listeners("127.0.0.1", 0)
print(urls(found)[0], [name for name in os.environ if name.startswith("LISTEN")])
print([os.get_inheritable(sock.fileno()) for sock in found])
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.mark.parametrize("is_ours", [True, False])
def test_given_sockets_are_used_by_the_process_that_they_are_for(
    listener: socket.socket, is_ours: bool
) -> None:
    def place() -> None:
        os.dup2(listener.fileno(), sd.FIRST_FD)

    root = str(Path(sd.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", ACTIVATED, root, "0" if is_ours else "1"],
        env=os.environ | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"},
        preexec_fn=place,
        close_fds=False,
        capture_output=True,
        text=True,
        check=True,
    )
    url, left = done.stdout.splitlines()[0].split(" ", 1)
    port = listener.getsockname()[1]
    assert (url == f"http://127.0.0.1:{port}") is is_ours
    assert left == "[]"
    assert done.stdout.splitlines()[1] == "[False]"


def test_what_does_not_listen_is_refused_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as idle:
        monkeypatch.setattr(sd, "FIRST_FD", os.dup(idle.fileno()))
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        with pytest.raises(StartError, match="no listening internet socket"):
            sd.activated_sockets(environ)
    assert environ == {}
    os.close(sd.FIRST_FD)


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"gpufc-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        sd.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    sd.notify("STOPPING=1")  # nobody listens any more: no matter
    monkeypatch.delenv("NOTIFY_SOCKET")
    sd.notify("STOPPING=1")


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
        ours.send(b"nobody")
    ours.close()


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\xa2Go", encode(Serving(()))])
def test_what_is_no_message_is_a_link_error(data: bytes) -> None:
    with pytest.raises(LinkError):
        decode_from_old(data)
    assert Go is not None
    assert Attached is not None


class End:
    """One end of a connection, and what it heard."""

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
    async with asyncio.timeout(5):
        while len(end.heard) < len(messages):
            end.news.clear()
            await end.news.wait()
    assert end.heard == messages
    frames.write(b"back")
    assert await loop.sock_recv(peer, 100) == b"\0\0\0\x04back"
    peer.close()
    async with asyncio.timeout(5):
        await end.lost.wait()
    frames.write(b"nobody")


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x05break"])
async def test_a_broken_frame_ends_the_connection(data: bytes) -> None:
    _, end, peer = await connected()
    await asyncio.get_running_loop().sock_sendall(peer, data)
    async with asyncio.timeout(5):
        await end.lost.wait()
    peer.close()
