"""A front's listener on loopback, and peers that dial it with plain sockets."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import zmq
from zmq.utils import z85

from supervisor.cluster import keys, wire
from supervisor.cluster.book import HostBook
from supervisor.cluster.keys import KeyPair
from supervisor.cluster.listener import HostListener, Limits
from supervisor.cluster.messages import HostMessage, Lease, ToHost, Welcome
from tests.supervisor.cluster.hosts import Recorder, hello


class Peer:
    """A socket that dials the listener with some keys."""

    def __init__(self, bench: "Bench", own: KeyPair, front_key: str) -> None:
        self.socket = bench.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        for option, key in (
            (zmq.CURVE_PUBLICKEY, own.public),
            (zmq.CURVE_SECRETKEY, own.secret),
            (zmq.CURVE_SERVERKEY, front_key),
        ):
            self.socket.setsockopt(option, z85.encode(bytes.fromhex(key)))
        self.monitor = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self.socket.setsockopt(zmq.IPV6, 1)
        self.socket.connect(bench.listener.endpoint)

    def say(self, message: HostMessage) -> None:
        self.socket.send(wire.control(message))

    async def hears(self) -> ToHost:
        """The next control message but `Lease`."""
        async with asyncio.timeout(60):
            while True:
                while not self.socket.poll(0):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
                message = wire.decode_to_host(wire.split(self.socket.recv())[1])
                if not isinstance(message, Lease):
                    return message

    async def is_cut(self) -> None:
        """Wait until the connection has ended."""
        async with asyncio.timeout(60):
            while True:
                while not self.monitor.poll(0):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
                event = int.from_bytes(self.monitor.recv_multipart()[0][:2], "little")
                if event == zmq.EVENT_DISCONNECTED:
                    return

    def close(self, linger_ms: int = 0) -> None:
        if self.socket.closed:
            return
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=linger_ms)


class Bench:
    """A listener and its peers."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.hosts = Recorder()
        self.book = HostBook(folder / "hosts.json")
        self.peers: list[Peer] = []
        self.endpoint = "tcp://127.0.0.1:0"
        self.now = 0.0
        self.open(Limits())

    def open(self, limits: Limits) -> None:
        self.listener = HostListener(
            self.book, self.hosts, self.endpoint, limits, clock=lambda: self.now
        )

    def reopen(self, limits: Limits) -> None:
        self.listener.close()
        self.open(limits)

    def peer(self, own: KeyPair, front_key: str | None = None) -> Peer:
        self.peers.append(Peer(self, own, front_key or self.book.front.public))
        return self.peers[-1]

    async def joined(self, **changes: str) -> tuple[Peer, KeyPair]:
        own, n_before = keys.new_pair(), len(self.hosts.channels)
        peer = self.peer(self.book.invite())
        peer.say(hello(own.public, **changes))
        await self.hosts.until(lambda: len(self.hosts.channels) > n_before)
        assert isinstance(await peer.hears(), Welcome)
        return peer, own

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 - counters wake no task
                await asyncio.sleep(0.002)

    def close(self) -> None:
        self.listener.close()
        for peer in self.peers:
            peer.close()
        self.context.term()
