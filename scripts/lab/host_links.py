"""What many joined machines cost a front: links with heartbeats through the real listener.

    python -m scripts.lab.host_links [--links 1000] [--seconds 20] [--per-s 4]

The front's end is this process with the real listener and book; the hosts' end is a child with
plain sockets that join by the real handshake and send vitals and one relayed frame at each beat.
Prints the time to join, CPU of the front's process as a part of a core, and its memory.
"""

import argparse
import asyncio
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import uvloop
import zmq
from zmq.utils import z85

from gpufc.ids import Epoch
from gpufc.protocol import PROTOCOL_VERSION
from supervisor.cluster import keys, wire
from supervisor.cluster.book import HostBook
from supervisor.cluster.listener import HostListener, Limits
from supervisor.cluster.messages import (
    HOST_PROTOCOL,
    Adoption,
    FromHost,
    HostHello,
    HostVitals,
)
from supervisor.cluster.port import HostChannel

FRAME = bytes(96)
"""About the size of a worker's heartbeat."""


class Counting:
    """The listener's user: counts what comes."""

    def __init__(self) -> None:
        self.n_joined = self.n_messages = self.n_frames = self.n_lost = 0

    def is_early(self, hello: HostHello) -> bool:
        return False

    def joined(self, channel: HostChannel) -> Sequence[Adoption]:
        self.n_joined += 1
        channel.listen(Epoch(1), self._frame)
        return ()

    def message(self, channel: HostChannel, message: FromHost) -> None:
        self.n_messages += 1

    def lost(self, channel: HostChannel, reason: str) -> None:
        self.n_lost += 1

    def _frame(self, data: memoryview) -> None:
        self.n_frames += 1


def hosts(pipe: Connection, endpoint: str, front: str, invitation: str, n: int, per_s: int) -> None:
    """The child: `n` hosts, each with a key of its own, until the pipe has something to read."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, 2 * n + 64)
    pair = keys.pair_of(invitation)
    sockets = []
    for number in range(n):
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.CURVE_SERVERKEY, z85.encode(bytes.fromhex(front)))
        socket.setsockopt(zmq.CURVE_PUBLICKEY, z85.encode(bytes.fromhex(pair.public)))
        socket.setsockopt(zmq.CURVE_SECRETKEY, z85.encode(bytes.fromhex(pair.secret)))
        socket.connect(endpoint)
        socket.send(wire.control(_hello(f"host-{number}")))
        sockets.append(socket)
        if number % 32 == 31:  # the listener takes 64 pending ones
            for one in sockets[-32:]:
                one.recv()
    vitals, frame = wire.control(HostVitals(())), wire.relayed(Epoch(1), FRAME)
    pipe.send("joined")
    began, beat = time.monotonic(), 0
    while not pipe.poll(max(0.0, began + beat / per_s - time.monotonic())):
        beat += 1
        for socket in sockets:
            socket.send(vitals)
            socket.send(frame)
            while socket.poll(0):
                socket.recv()
    context.destroy(linger=0)


def _hello(machine: str) -> HostHello:
    own = keys.new_pair().public
    return HostHello(HOST_PROTOCOL, PROTOCOL_VERSION, "0", machine, own, machine, 8, 1 << 36)


async def measured(n: int, seconds: float, per_s: int) -> None:
    own = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        book, counting = HostBook(Path(folder) / "hosts.json"), Counting()
        invitation = book.invite(uses=n)
        before = own.memory_full_info().uss
        listener = HostListener(book, counting, "tcp://127.0.0.1:0", Limits(silence_s=30.0))
        pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        child = multiprocessing.get_context("spawn").Process(
            target=hosts,
            args=(theirs, listener.endpoint, book.front.public, invitation.secret, n, per_s),
        )
        child.start()
        began, cpu = time.monotonic(), own.cpu_times()
        await asyncio.to_thread(pipe.recv)
        print(f"{n} joined in {time.monotonic() - began:.1f} s, {_cpu(own, cpu):.2f} s of CPU")
        await asyncio.sleep(2.0)
        began, cpu, n_before = time.monotonic(), own.cpu_times(), counting.n_frames
        await asyncio.sleep(seconds)
        took_s, cpu_s = time.monotonic() - began, _cpu(own, cpu)
        n_frames, memory = counting.n_frames - n_before, own.memory_full_info().uss - before
        n_lost = counting.n_lost
        logging.disable()  # all are lost at the end
        pipe.send("end")
        await asyncio.to_thread(child.join)
        listener.close()
    print(
        f"{n_frames / took_s:.0f} beats/s (a frame and vitals each): {100 * cpu_s / took_s:.1f} %"
        f" of a core, {1e6 * cpu_s / max(1, n_frames):.0f} us a beat;"
        f" {memory / 2**20:.1f} MiB more; {n_lost} lost"
    )


def _cpu(process: psutil.Process, since: Any) -> float:
    now = process.cpu_times()
    return float(now.user + now.system - since.user - since.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--links", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--per-s", type=int, default=4)
    options = parser.parse_args()
    uvloop.run(measured(options.links, options.seconds, options.per_s))


if __name__ == "__main__":
    main()
