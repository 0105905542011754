"""The worker's end of the link, against a bare socket in the front's place."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
import zmq

from engine_worker import channel
from engine_worker.backend.fake.channel import GARBAGE, FakeChannel
from engine_worker.channel import Channel
from gpufc import wire
from gpufc.errors import LinkError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    Cancel,
    Delta,
    EnginePhase,
    EngineStatus,
    FromWorker,
    Heartbeat,
    Hello,
    Loading,
    Step,
    ToWorker,
)

EPOCH = Epoch(7)
STEP = Step(EPOCH, 3, (Delta(RequestNo(5), 2, (40, 41), "ab"),))
CANCEL = Cancel(EPOCH, RequestNo(5))
WAIT_MS = 60_000


class Front:
    """A ROUTER that is bound where the worker is told to connect."""

    def __init__(self, folder: Path) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)  # else it drops what is beyond it
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self.endpoint = f"ipc://{folder / 'f.sock'}"
        self.socket.bind(self.endpoint)

    def receive(self) -> bytes:
        """What comes next and is no heartbeat."""
        while self.socket.poll(WAIT_MS):
            self._worker, data = self.socket.recv_multipart()
            if b"Heartbeat" not in data[:20]:
                return bytes(data)
        raise AssertionError("nothing came")

    def say(self, message: ToWorker) -> None:
        """To the worker, which has said something before."""
        self.socket.send_multipart([self._worker, wire.encode(message)])

    def close(self) -> None:
        self.context.destroy(linger=0)


class Worker:
    """A channel in its thread, and the error that ended it."""

    def __init__(
        self,
        front: Front,
        kind: type[Channel] = Channel,
        on_message: Callable[[ToWorker], None] = lambda _: None,
    ) -> None:
        hello = Hello(EPOCH, PROTOCOL_VERSION, "token", 1)
        self.channel = kind(front.endpoint, hello, on_message=on_message, heartbeat=lambda: _BEAT)
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
    worker = Worker(front)
    worker.channel.send(STEP)
    worker.channel.wait_sent(WAIT_MS / 1e3)
    assert not worker.channel._outbox
    assert front.receive() == wire.encode(STEP)


def test_a_wait_for_a_channel_that_stands_ends(front: Front) -> None:
    hello = Hello(EPOCH, PROTOCOL_VERSION, "token", 1)
    made = Channel(front.endpoint, hello, on_message=lambda _: None, heartbeat=lambda: _BEAT)
    made.wait_sent(0.01)
    assert made._outbox


def test_a_message_does_not_wait_for_the_channels_thread(front: Front) -> None:
    is_held, may_go_on = threading.Event(), threading.Event()

    def hold(_: ToWorker) -> None:
        is_held.set()
        assert may_go_on.wait(WAIT_MS / 1e3)

    worker = Worker(front, on_message=hold)
    front.say(CANCEL)
    assert is_held.wait(WAIT_MS / 1e3)
    worker.channel.send(STEP)
    assert front.receive() == wire.encode(STEP)
    may_go_on.set()


def test_no_message_is_lost_or_overtaken_while_threads_send(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A send may take the announcement of what the front has sent, and no heartbeat brings it."""
    monkeypatch.setattr(channel, "HEARTBEAT_S", 3600.0)
    n_messages, senders = 2_000, ("a", "b")
    received: SimpleQueue[ToWorker] = SimpleQueue()
    worker = Worker(front, on_message=received.put)

    def send_all(name: str) -> None:
        for number in range(n_messages):
            worker.channel.send_bytes(f"{name} {number}".encode())

    threads = [threading.Thread(target=send_all, args=(name,)) for name in senders]
    for thread in threads:
        thread.start()
    for number in range(n_messages):
        front.say(Cancel(EPOCH, RequestNo(number)))
    got = [front.receive().decode() for _ in range(n_messages * len(senders))]
    for thread in threads:
        thread.join()
    for name in senders:
        own = [message for message in got if message.startswith(name)]
        assert own == [f"{name} {number}" for number in range(n_messages)]
    for number in range(n_messages):
        assert received.get(timeout=WAIT_MS / 1e3) == Cancel(EPOCH, RequestNo(number))


def test_what_did_not_fit_is_sent_when_the_front_reads_again(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look for received messages may take the announcement of room, and no heartbeat helps."""
    monkeypatch.setattr(channel, "HEARTBEAT_S", 3600.0)
    monkeypatch.setattr(channel, "HIGH_WATER_MARK", 100)
    front.socket.setsockopt(zmq.RCVHWM, 100)
    worker = Worker(front)
    n_messages = 2_000
    for number in range(n_messages):
        worker.channel.send_bytes(b"%01000d" % number)
    assert worker.channel._outbox
    assert [int(front.receive()) for _ in range(n_messages)] == list(range(n_messages))


def test_what_is_said_first_to_a_new_front_is_not_said_to_the_old_one(
    front: Front, tmp_path: Path
) -> None:
    """Also if another thread sends just then."""
    (tmp_path / "new").mkdir()
    new = Front(tmp_path / "new")
    hello = Hello(Epoch(8), PROTOCOL_VERSION, "token", 1)

    def move(_: ToWorker) -> None:
        worker.channel.move(new.endpoint, Epoch(8), (hello,))
        thread = threading.Thread(target=worker.channel.send, args=(STEP,))
        thread.start()
        thread.join()

    worker = Worker(front, on_message=move)
    front.say(CANCEL)
    assert [new.receive(), new.receive()] == [wire.encode(hello), wire.encode(STEP)]
    new.close()


def test_a_worker_whose_link_is_cut_ends(front: Front) -> None:
    worker = Worker(front)
    front.socket.close(linger=0)
    worker.thread.join(WAIT_MS / 1e3)
    assert "cut" in str(worker.error)


def test_too_large_a_message_cuts_the_link(front: Front) -> None:
    worker = Worker(front)
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
