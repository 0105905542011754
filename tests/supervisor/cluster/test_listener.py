"""What the front's listener lets in, and when it takes a host for lost. Peers are plain sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from gpufc.ids import Epoch
from supervisor.cluster import keys, wire
from supervisor.cluster.book import HostBook
from supervisor.cluster.keys import KeyPair
from supervisor.cluster.listener import LEAST_PAUSE_S, HostListener, Limits
from supervisor.cluster.messages import (
    HOST_PROTOCOL,
    MAX_HELLO_BYTES,
    HostMessage,
    Lease,
    Leaving,
    Refused,
    ToHost,
    Welcome,
)
from tests.supervisor.cluster.hosts import Recorder, hello


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


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


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


async def test_an_invited_host_joins_and_is_heard(bench: Bench) -> None:
    peer, _ = await bench.joined()
    bench.hosts.listen(7)
    peer.say(Leaving("test", 1.0))
    peer.socket.send(wire.relayed(Epoch(7), b"seven"))
    peer.socket.send(wire.relayed(Epoch(8), b"eight"))
    peer.socket.send(wire.relayed(Epoch(7), b"again"))
    await bench.hosts.until(lambda: len(bench.hosts.frames[Epoch(7)]) == 2)
    assert bench.hosts.frames[Epoch(7)] == [b"seven", b"again"]
    assert bench.hosts.messages == [Leaving("test", 1.0)]
    assert bench.listener.channels[0].dropped["stale"] == 1


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")
async def test_hosts_join_over_ipv6(bench: Bench) -> None:
    bench.endpoint = "tcp://[::1]:0"
    bench.reopen(Limits())
    assert bench.listener.endpoint.startswith("tcp://[::1]:")
    await bench.joined()


async def test_messages_go_down_in_order_after_the_welcome(bench: Bench) -> None:
    def early(channel) -> tuple[()]:  # type: ignore[no-untyped-def]
        channel.send_frame(Epoch(1), b"first")
        return ()

    bench.hosts.adopt = early
    peer, _ = await bench.joined()
    bench.hosts.channel.send_frame(Epoch(2), b"second")
    found: list[bytes] = []
    while len(found) < 2:
        await bench.until(lambda: peer.socket.poll(0))
        epoch, payload = wire.split(peer.socket.recv())
        found += [bytes(payload)] if epoch else []
    assert found == [b"first", b"second"]


async def test_a_closed_connection_is_a_lost_host_at_once(bench: Bench) -> None:
    peer, _ = await bench.joined()
    bench.hosts.listen(7)
    peer.socket.send(wire.relayed(Epoch(7), b"last words"))
    peer.close(linger_ms=1000)
    await bench.hosts.until(lambda: bench.hosts.losses)
    assert bench.hosts.losses == ["the connection was closed"]
    assert bench.hosts.frames[Epoch(7)] == [b"last words"]
    bench.hosts.channel.send(Lease())  # dropped
    assert bench.listener.channels == ()


async def test_a_late_message_of_a_lost_host_cuts_no_other_host(bench: Bench) -> None:
    """Its descriptor's number may be another host's by now."""
    peer, _ = await bench.joined()
    (channel,) = bench.listener.channels
    bench.listener._connections.turn_away(channel.fd)
    peer.say(Leaving("still here", 1.0))
    await bench.hosts.until(lambda: bench.hosts.messages or bench.hosts.losses)
    assert bench.hosts.losses == []


async def test_a_silent_host_is_lost(bench: Bench) -> None:
    bench.reopen(Limits(silence_s=0.04, late_s=1e9))
    await bench.joined()
    bench.now += 1.0
    await bench.hosts.until(lambda: bench.hosts.losses)
    assert "silent for 1.0 s" in bench.hosts.losses[0]


class Timer:
    """Stands in for the loop's timers: the last one that was set."""

    def __init__(self) -> None:
        self.pause_s = 0.0

    def call_later(self, pause_s: float, _call: Callable[[], None]) -> "Timer":
        self.pause_s = pause_s
        return self

    def cancel(self) -> None: ...


async def test_a_silent_host_is_lost_when_its_time_is_over_and_not_a_look_later(
    bench: Bench,
) -> None:
    bench.reopen(Limits(lease_s=4.0, silence_s=5.1, late_s=1e9))
    listener, timer = bench.listener, Timer()
    listener._timer.cancel()
    await bench.joined()
    listener._loop = timer  # type: ignore[assignment]
    while not bench.hosts.losses:
        listener._look()
        bench.now += timer.pause_s
    lost_at = bench.now - timer.pause_s
    assert lost_at == pytest.approx(5.1, abs=1.5 * LEAST_PAUSE_S)


@pytest.mark.parametrize(
    ("silent_s", "pause_s"), [(0.0, 1.0), (3.9, 1.0), (4.7, 0.3), (5.0, LEAST_PAUSE_S)]
)
def test_the_next_look_is_when_a_silent_host_is_lost(silent_s: float, pause_s: float) -> None:
    assert Limits(silence_s=5.0).pause_s(silent_s) == pytest.approx(pause_s)


async def test_time_in_which_the_front_did_not_look_is_no_silence(bench: Bench) -> None:
    bench.reopen(Limits(silence_s=0.04, late_s=0.5))
    peer, _ = await bench.joined()
    bench.now += 100.0
    leases = 0
    while leases < 3:
        await bench.until(lambda: peer.socket.poll(0))
        leases += isinstance(wire.decode_to_host(wire.split(peer.socket.recv())[1]), Lease)
    assert bench.hosts.losses == []


async def test_a_host_that_was_heard_before_a_late_look_may_not_be_silent_longer(
    bench: Bench,
) -> None:
    bench.reopen(Limits(silence_s=0.04, late_s=0.5))
    await bench.joined()
    looked = asyncio.Event()

    def clock() -> float:
        looked.set()
        return 100.0

    bench.listener.clock = clock
    bench.hosts.channel.heard_at = 100.0  # its messages were read before the look
    async with asyncio.timeout(60):
        await looked.wait()
    assert bench.hosts.channel.heard_at == 100.0


@pytest.mark.parametrize("fault", ["stranger", "wrong front", "used", "forgotten"])
async def test_without_a_key_nothing_comes_in(bench: Bench, fault: str) -> None:
    own = keys.new_pair()
    if fault == "stranger":
        peer = bench.peer(own)
    elif fault == "wrong front":
        peer = bench.peer(bench.book.invite(), keys.new_pair().public)
    elif fault == "used":
        invitation = bench.book.invite()
        bench.book.enter(invitation.public, hello(own.public))
        peer = bench.peer(invitation)
    else:
        bench.book.enter(bench.book.invite().public, hello(own.public))
        bench.book.forget("node")
        peer = bench.peer(own)
    peer.say(hello(own.public))
    await peer.is_cut()
    assert bench.hosts.channels == []
    assert bench.listener.dropped.total() == 0  # not a single message was read


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1",
        bytes(8) + b"\xc1",
        wire.control(Leaving("no hello", 1.0)),
        wire.relayed(Epoch(1), b"\xc1"),
        bytes(MAX_HELLO_BYTES + 1),
    ],
)
async def test_a_peer_without_a_hello_is_cut(bench: Bench, data: bytes) -> None:
    peer = bench.peer(bench.book.invite())
    peer.socket.send(data)
    await peer.is_cut()
    assert bench.listener.dropped["no_hello"] == 1
    assert bench.hosts.channels == []


async def test_a_peer_that_says_nothing_is_cut(bench: Bench) -> None:
    peer = bench.peer(bench.book.invite())
    await bench.until(lambda: bench.listener.figures()["pending"] == 1)
    bench.now += 6.0
    await peer.is_cut()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(8) + b"\xc1",
        wire.control(Lease()),
        wire.control(hello("a" * 64)),
    ],
)
async def test_a_host_that_breaks_the_protocol_is_lost(bench: Bench, data: bytes) -> None:
    peer, _ = await bench.joined()
    peer.socket.send(data)
    await peer.is_cut()
    assert len(bench.hosts.losses) == 1
    assert "broke the protocol" in bench.hosts.losses[0]


async def test_a_message_of_several_frames_breaks_the_protocol(bench: Bench) -> None:
    peer, _ = await bench.joined()
    peer.socket.send_multipart([b"a", b"b", b"c"])
    await peer.is_cut()
    assert "several frames" in bench.hosts.losses[0]


async def test_another_version_is_refused_with_a_reason(bench: Bench) -> None:
    peer = bench.peer(bench.book.invite())
    peer.say(hello(keys.new_pair().public, protocol=HOST_PROTOCOL + 1))
    answer = await peer.hears()
    assert isinstance(answer, Refused)
    assert "install the same version" in answer.reason
    assert bench.book.n_invitations == 1  # not used up


async def test_a_second_process_of_a_host_is_refused(bench: Bench) -> None:
    _, own = await bench.joined()
    second = bench.peer(own)
    second.say(hello(own.public, run="run-2"))
    answer = await second.hears()
    assert isinstance(answer, Refused)
    assert answer.retryable
    assert bench.hosts.losses == []


async def test_the_same_process_replaces_its_connection(bench: Bench) -> None:
    """At the second attempt: by then the fleet has taken leave of the first connection's workers,
    and may go on with them."""
    first, own = await bench.joined()
    second = bench.peer(own)
    second.say(hello(own.public))
    answer = await second.hears()
    assert isinstance(answer, Refused)
    assert answer.retryable
    await first.is_cut()
    assert bench.hosts.losses == ["the host has connected again"]
    third = bench.peer(own)
    third.say(hello(own.public))
    assert isinstance(await third.hears(), Welcome)


async def test_two_hosts_cannot_share_one_invitation(bench: Bench) -> None:
    """Both have passed the handshake before either says hello."""
    invitation = bench.book.invite()
    peers = [bench.peer(invitation) for _ in range(2)]
    await bench.until(lambda: bench.listener.figures()["pending"] == 2)
    for peer in peers:
        peer.say(hello(keys.new_pair().public))
    await bench.hosts.until(lambda: bench.hosts.channels)
    await bench.until(lambda: bench.listener.figures()["accepted"] == 2)
    for peer in peers[1:]:
        peer.close()
    assert len(bench.book.hosts) == 1


@pytest.mark.slow
async def test_silent_connections_are_bounded_and_keep_no_host_out(bench: Bench) -> None:
    _, port = bench.listener.endpoint.removeprefix("tcp://").split(":")
    before, _ = await bench.joined()
    flood = []
    for _ in range(1000):
        with contextlib.suppress(OSError):
            flood.append(socket.create_connection(("127.0.0.1", int(port))))
        await asyncio.sleep(0)
    await bench.until(lambda: bench.listener.figures()["accepted"] >= 900)
    assert bench.listener.figures()["pending"] <= Limits().most_pending
    await bench.joined(machine="late")
    assert bench.hosts.losses == []
    before.say(Leaving("still here", 1.0))
    await bench.hosts.until(lambda: bench.hosts.messages)
    for connection in flood:
        connection.close()


async def test_garbage_before_the_handshake_is_cut(bench: Bench) -> None:
    _, port = bench.listener.endpoint.removeprefix("tcp://").split(":")
    for data in (b"GET / HTTP/1.1\r\n\r\n" * 8, b"\xff" * 64, b"\0" * 64):
        connection = socket.create_connection(("127.0.0.1", int(port)))
        connection.sendall(data)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                while await loop.sock_recv(connection, 4096):
                    pass
        connection.close()
    await bench.joined()


async def test_a_closed_listener_loses_all_hosts(bench: Bench) -> None:
    await bench.joined()
    bench.reopen(Limits())
    assert bench.hosts.losses == ["the front ends"]
