"""What the front's listener lets in. Peers are plain sockets."""

import asyncio
import contextlib
import socket

import pytest

from gpufc.ids import Epoch
from supervisor.cluster import keys, wire
from supervisor.cluster.listener import Limits
from supervisor.cluster.messages import (
    HOST_PROTOCOL,
    MAX_HELLO_BYTES,
    Lease,
    Leaving,
    Refused,
    Welcome,
)
from tests.supervisor.cluster.hosts import hello
from tests.supervisor.cluster.listener_bench import Bench


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


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
