"""The worker's end of the link, against a bare socket in the front's place."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from engine_worker.backend.fake.channel import GARBAGE, FakeChannel
from engine_worker.channel import Channel
from gpufc import wire
from gpufc.errors import LinkError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    Delta,
    EnginePhase,
    EngineStatus,
    FromWorker,
    Heartbeat,
    Hello,
    Loading,
    Step,
)

EPOCH = Epoch(7)
STEP = Step(EPOCH, 3, (Delta(RequestNo(5), 2, (40, 41), "ab"),))
WAIT_MS = 60_000


class Front:
    """A ROUTER that is bound where the worker is told to connect."""

    def __init__(self, folder: Path) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self.endpoint = f"ipc://{folder / 'f.sock'}"
        self.socket.bind(self.endpoint)

    def receive(self) -> bytes:
        """What comes next and is no heartbeat."""
        while self.socket.poll(WAIT_MS):
            _, data = self.socket.recv_multipart()
            if b"Heartbeat" not in data[:20]:
                return bytes(data)
        raise AssertionError("nothing came")

    def close(self) -> None:
        self.context.destroy(linger=0)


class Worker:
    """A channel in its thread, and the error that ended it."""

    def __init__(self, front: Front, kind: type[Channel]) -> None:
        hello = Hello(EPOCH, PROTOCOL_VERSION, "token", 1)
        self.channel = kind(
            front.endpoint, hello, on_message=lambda _: None, heartbeat=lambda: _BEAT
        )
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert isinstance(wire.decode_from_worker(front.receive()), Hello)

    def _run(self) -> None:
        try:
            self.channel.run()
        except LinkError as err:
            self.error = err


_BEAT = Heartbeat(EPOCH, EngineStatus(EnginePhase.IDLE, 1), 0.0)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    made = Front(tmp_path)
    yield made
    made.close()


def misspoken(front: Front, fault: str, *before: FromWorker) -> bytes:
    """What the front gets when the channel has said these things and then misspeaks."""
    worker = Worker(front, FakeChannel)
    assert isinstance(worker.channel, FakeChannel)
    for message in before:
        worker.channel.send(message)
        front.receive()
    worker.channel.misspeak(fault)
    return front.receive()


def test_a_thread_can_wait_until_its_message_is_on_its_way(front: Front) -> None:
    worker = Worker(front, Channel)
    worker.channel.send(STEP)
    worker.channel.wait_sent(WAIT_MS / 1e3)
    assert not worker.channel._outbox
    assert front.receive() == wire.encode(STEP)


def test_a_wait_for_a_channel_that_stands_ends(front: Front) -> None:
    hello = Hello(EPOCH, PROTOCOL_VERSION, "token", 1)
    channel = Channel(front.endpoint, hello, on_message=lambda _: None, heartbeat=lambda: _BEAT)
    channel.wait_sent(0.01)
    assert channel._outbox


def test_a_worker_whose_link_is_cut_ends(front: Front) -> None:
    worker = Worker(front, Channel)
    front.socket.close(linger=0)
    worker.thread.join(WAIT_MS / 1e3)
    assert "cut" in str(worker.error)


def test_too_large_a_message_cuts_the_link(front: Front) -> None:
    worker = Worker(front, Channel)
    worker.channel.send_bytes(bytes(MAX_MESSAGE_BYTES + 1))
    worker.thread.join(WAIT_MS / 1e3)
    assert "cut" in str(worker.error)


def test_garbage_is_no_message(front: Front) -> None:
    assert misspoken(front, "garbage", STEP) == GARBAGE
    with pytest.raises(LinkError):
        wire.decode_from_worker(GARBAGE)


def test_a_duplicate_is_what_was_said_last(front: Front) -> None:
    assert misspoken(front, "duplicate", Loading(EPOCH, 0.5), STEP) == wire.encode(STEP)


def test_of_another_epoch_are_other_tokens_at_the_position_that_comes_next(front: Front) -> None:
    said = wire.decode_from_worker(misspoken(front, "old_epoch", STEP))
    assert isinstance(said, Step)
    (delta,) = said.deltas
    assert (said.epoch, delta.request, delta.position) == (EPOCH - 1, 5, 4)
