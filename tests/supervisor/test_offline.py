"""Offline mode: no code of the process opens a connection, whichever way it tries."""

import subprocess
import sys

import pytest

CODE = """
import asyncio, socket, sys, uvloop
from supervisor import offline

async def main():
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    offline.forbid(loop)
    assert socket.getaddrinfo("127.0.0.1", 80) and await loop.getaddrinfo("localhost", 80)
    ours, theirs = socket.socketpair()
    ours.close(), theirs.close()

    def plain():
        socket.create_connection(address)

    def datagram():
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))

    def looked_up():
        socket.getaddrinfo("models.example", 443)

    for way in (plain, datagram, looked_up):
        try:
            way()
        except offline.Offline:
            continue
        sys.exit(way.__name__)
    ways = {
        "connection": lambda: loop.create_connection(asyncio.Protocol, *address),
        "stream": lambda: asyncio.open_connection(*address),
        "datagram": lambda: loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=address
        ),
        "sock_connect": lambda: loop.sock_connect(socket.socket(), address),
        "look_up": lambda: loop.getaddrinfo("models.example", 443),
    }
    for name, way in ways.items():
        try:
            await way()
        except offline.Offline:
            continue
        sys.exit(name)

factory = uvloop.new_event_loop if sys.argv[1] == "uvloop" else asyncio.new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_every_way_out_is_refused(loop: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, loop], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
