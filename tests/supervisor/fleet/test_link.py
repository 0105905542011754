"""One socket, one epoch, one peer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import zmq

from gpufc import wire
from gpufc.errors import LinkError
from gpufc.ids import Epoch, RequestNo
from gpufc.packed import ID_BYTES
from gpufc.protocol import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    Detokenize,
    Finished,
    FinishReason,
    FromWorker,
    Hello,
    Message,
    Prepared,
    Shutdown,
)
from supervisor import socket_reader
from supervisor.fleet import worker_socket
from supervisor.fleet.link import WorkerLink

EPOCH = Epoch(5)
TOKEN = "t" * 32
PID = 4321


class Bench:
    """A link, its peers, and the messages that it handed over."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.messages: list[FromWorker] = []
        self.broken: list[tuple[str, bool]] = []
        self.path = folder / "w-1.sock"
        self.link = WorkerLink(
            self.context,
            self.path,
            EPOCH,
            TOKEN,
            on_message=self.messages.append,
            on_broken=lambda detail, retryable: self.broken.append((detail, retryable)),
        )
        self.link.expect(PID)
        self.peers: list[zmq.Socket[bytes]] = []

    def peer(self) -> "zmq.Socket[bytes]":
        peer = self.context.socket(zmq.DEALER)
        peer.setsockopt(zmq.LINGER, 0)
        peer.connect(self.link.endpoint)
        self.peers.append(peer)
        return peer

    def proven(self) -> "zmq.Socket[bytes]":
        peer = self.peer()
        peer.send(hello())
        return peer

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 - a link's counters wake no task
                await asyncio.sleep(0.001)

    def close(self) -> None:
        self.link.close()
        for peer in self.peers:
            peer.close(linger=0)
        self.context.term()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def hello(
    *, epoch: int = EPOCH, protocol: int = PROTOCOL_VERSION, token: str = TOKEN, pid: int = PID
) -> bytes:
    return wire.encode(Hello(Epoch(epoch), protocol, token, pid))


def fact(number: int, epoch: int = EPOCH) -> bytes:
    return wire.encode(Finished(Epoch(epoch), RequestNo(number), FinishReason.CANCELLED))


def numbers(messages: list[FromWorker]) -> list[int]:
    return [message.request for message in messages if isinstance(message, Finished)]


async def test_messages_arrive_in_order_after_the_hello(bench: Bench) -> None:
    peer = bench.proven()
    for number in range(1000):
        peer.send(fact(number))
    await bench.until(lambda: len(bench.messages) == 1001)
    assert isinstance(bench.messages[0], Hello)
    assert numbers(bench.messages) == list(range(1000))


@pytest.mark.parametrize("n_more", [-ID_BYTES, 0, ID_BYTES])
async def test_a_large_message_is_whole_also_after_the_link_is_closed(
    bench: Bench, n_more: int
) -> None:
    ids = bytes(range(256)) * (worker_socket.LEAST_UNCOPIED // 256) + bytes(ID_BYTES)
    ids = ids[: worker_socket.LEAST_UNCOPIED + n_more]
    peer = bench.proven()
    peer.send(wire.encode(Prepared(EPOCH, RequestNo(1), memoryview(ids))))
    peer.send(fact(2))
    await bench.until(lambda: len(bench.messages) == 3)
    bench.link.close()
    _, prepared, _ = bench.messages
    assert isinstance(prepared, Prepared)
    assert prepared.packed == ids
    assert numbers(bench.messages) == [2]


@pytest.mark.parametrize(
    "data",
    [
        hello(token="x" * 32),
        hello(token=""),
        hello(pid=PID + 1),
        hello(epoch=EPOCH - 1),
        fact(1),
        b"",
        b"\xc1",
        b"\x91" * 5000,
    ],
)
async def test_who_does_not_prove_itself_is_dropped_and_counted(bench: Bench, data: bytes) -> None:
    bench.peer().send(data)
    await bench.until(lambda: bench.link.dropped["stranger"] == 1)
    bench.proven()
    await bench.until(lambda: bench.messages)
    assert bench.broken == []


async def test_a_second_peer_is_a_stranger_even_with_the_token(bench: Bench) -> None:
    bench.proven()
    await bench.until(lambda: bench.messages)
    thief = bench.proven()
    thief.send(fact(1))
    await bench.until(lambda: bench.link.dropped["stranger"] == 2)
    assert len(bench.messages) == 1


async def test_another_version_breaks_the_link_for_good(bench: Bench) -> None:
    bench.peer().send(hello(protocol=PROTOCOL_VERSION + 1))
    await bench.until(lambda: bench.broken)
    assert bench.broken[0][1] is False
    assert bench.messages == []


async def test_another_epoch_is_dropped_and_counted(bench: Bench) -> None:
    peer = bench.proven()
    peer.send(fact(1, epoch=EPOCH - 1))
    peer.send(fact(2, epoch=EPOCH + 1))
    peer.send(fact(3))
    await bench.until(lambda: numbers(bench.messages) == [3])
    assert bench.link.dropped["stale"] == 2


@pytest.mark.parametrize(
    "frames", [[b"\xc1"], [b""], [fact(1), b"more"], [b"\xdd\xff\xff\xff\xff"]]
)
async def test_garbage_breaks_the_link_once(bench: Bench, frames: list[bytes]) -> None:
    peer = bench.proven()
    for _ in range(3):
        peer.send_multipart(frames)
    peer.send(fact(2))
    await bench.until(lambda: bench.link.dropped["after_break"] == 3)
    assert len(bench.broken) == 1
    assert numbers(bench.messages) == []


async def test_a_flood_leaves_turns_for_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_reader, "MESSAGES_PER_TURN", 10)
    peer = bench.proven()
    await bench.until(lambda: bench.messages)
    for number in range(500):
        peer.send(fact(number))
    most, before = 0, len(bench.messages)
    while len(bench.messages) < 501:
        await asyncio.sleep(0)
        most, before = max(most, len(bench.messages) - before), len(bench.messages)
    assert most <= 20


async def test_answers_in_the_wake_of_a_send_are_not_missed(bench: Bench) -> None:
    """Sending may swallow the descriptor's wake-up for a message that arrived meanwhile."""
    peer = bench.proven()
    await bench.until(lambda: bench.messages)
    for number in range(2000):
        peer.send(fact(number))
        bench.link.send(Shutdown(EPOCH))
        await bench.until(lambda n=number: len(bench.messages) == n + 2)
        peer.recv()


async def test_sending_without_a_peer_is_dropped(bench: Bench) -> None:
    bench.link.send(Shutdown(EPOCH))
    assert bench.link.dropped["unsent"] == 1


async def test_a_message_over_the_limit_is_the_senders_error(bench: Bench) -> None:
    huge = Detokenize(EPOCH, RequestNo(1), ((2**40,) * (MAX_MESSAGE_BYTES // 9 + 1),))
    with pytest.raises(LinkError):
        bench.link.send(huge)


async def test_a_peer_that_left_breaks_the_link(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_socket, "UNREACHABLE_S", 0.01)
    peer = bench.proven()
    await bench.until(lambda: bench.messages)
    peer.close(linger=0)

    def broken_by_sending() -> bool:
        bench.link.send(Shutdown(EPOCH))
        return bool(bench.broken)

    await bench.until(broken_by_sending)


async def test_close_removes_the_socket_file(bench: Bench) -> None:
    assert bench.path.exists()
    assert bench.path.stat().st_mode & 0o077 == 0
    bench.link.close()
    bench.link.close()
    assert not bench.path.exists()
    bench.link.send(Shutdown(EPOCH))
    bench.link.drain_now()


async def test_closing_from_inside_a_message_is_safe(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    closed: list[Message] = []

    def close(message: FromWorker) -> None:
        closed.append(message)
        bench.link.close()

    bench.link._peer._on_message = close
    peer = bench.proven()
    for number in range(10):
        peer.send(fact(number))
    await bench.until(lambda: closed)
    bench.close()
    assert len(closed) == 1
