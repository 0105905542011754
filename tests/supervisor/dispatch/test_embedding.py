"""Requests for embeddings, over workers that come and go."""

import asyncio
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufc.config import AdmissionConfig
from gpufc.errors import (
    EngineCrashSuspect,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
)
from gpufc.protocol import (
    Cancel,
    Embed,
    Embedded,
    Embedding,
    EmbeddingInput,
    PairPrompt,
    Refused,
    TextPrompt,
    TokenPrompt,
)
from supervisor.dispatch import embedding_turns
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.embedding import (
    OPEN_PIECES,
    PIECE_CHARS,
    PIECE_INPUTS,
    EmbeddingRequest,
    pieces,
)
from supervisor.dispatch.recovery import MAX_OUTAGE_S
from supervisor.dispatch.request import ANONYMOUS
from supervisor.fleet.exit_reason import ExitReason, Reason
from tests.supervisor.dispatch.fakes import (
    FAILED,
    MODEL,
    FakeFleet,
    FakeWorker,
    generates,
    request,
    text_of,
    until,
    whole_texts,
)

CRASHED = ExitReason(signal=11, reason=Reason.CRASHED, at=0.0)


class Front:
    """A dispatcher over a fake fleet."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.fleet = FakeFleet()
        limits = AdmissionConfig(max_concurrent_requests=4)
        self.dispatcher = Dispatcher(self.fleet, limits, clock=clock)
        self.fleet.dispatcher = self.dispatcher

    def start(self, *, answers: bool = True, fingerprint: str = "abc123") -> FakeWorker:
        worker = self.fleet.start_worker(auto=False, fingerprint=fingerprint)
        worker.answers_embed = answers
        return worker

    def n_waiting(self) -> int:
        """Questions to the engine."""
        return len(self.dispatcher.group(MODEL).questions)

    def embed(self, *texts: str) -> asyncio.Task[list[Embedding]]:
        inputs = tuple(map(TextPrompt, texts))
        asked = EmbeddingRequest(model=MODEL, inputs=inputs)
        return asyncio.create_task(self.dispatcher.asking.embed(asked))


def embeds(worker: FakeWorker) -> list[Embed]:
    return [message for message in worker.sent if isinstance(message, Embed)]


async def lengths(answer: asyncio.Task[list[Embedding]]) -> list[int]:
    return [one.n_tokens for one in await answer]


@given(st.lists(st.integers(0, PIECE_CHARS + 10), min_size=1, max_size=200))
def test_pieces_have_all_inputs_in_their_order_within_limits(sizes: list[int]) -> None:
    inputs: list[EmbeddingInput] = [
        (TextPrompt("x" * n), TokenPrompt((1,) * (n // 4)), PairPrompt("", "x" * n))[n % 3]
        for n in sizes
    ]
    cut = list(pieces(inputs))
    assert [one for piece in cut for one in piece] == inputs
    for piece in cut:
        assert 1 <= len(piece) <= PIECE_INPUTS
        n_chars = sum(
            len(one.text)
            if isinstance(one, TextPrompt)
            else 4 * len(one.tokens)
            if isinstance(one, TokenPrompt)
            else len(one.query + one.document)
            for one in piece
        )
        assert n_chars <= PIECE_CHARS or len(piece) == 1


async def test_inputs_are_embedded_in_their_order_and_counted() -> None:
    front = Front()
    front.start()
    texts = ["x" * (1 + n % 7) for n in range(1000)]
    assert await lengths(front.embed(*texts)) == [len(text) for text in texts]
    ledger = front.dispatcher.ledger
    assert (ledger.requests.succeeded, ledger.tokens.prompt) == (1, sum(map(len, texts)))


async def test_one_request_has_few_pieces_open_so_that_another_one_is_soon_served() -> None:
    front = Front()
    worker = front.start(answers=False)
    many = front.embed(*["many"] * 2048)
    await until(lambda: len(embeds(worker)) == OPEN_PIECES)
    one = front.embed("one")
    await until(lambda: len(embeds(worker)) == OPEN_PIECES + 1)
    worker.answers_embed = True
    for message in embeds(worker):
        worker._handle(message)
    assert await lengths(one) == [3]
    assert not many.done()
    assert await lengths(many) == [4] * 2048


async def test_a_lost_worker_s_pieces_are_asked_of_the_next_one() -> None:
    front = Front()
    first = front.start(answers=False)
    answer = front.embed(*["text"] * 200)
    await until(lambda: embeds(first))
    first.die()
    await asyncio.sleep(0)
    assert not answer.done()
    second = front.start()
    assert await lengths(answer) == [4] * 200
    assert len(embeds(second)) == len(list(pieces([TextPrompt("text")] * 200)))
    assert front.dispatcher.ledger.requests.failed == 0


async def test_inputs_wait_for_the_first_worker_but_not_for_ever() -> None:
    now = [0.0]
    front = Front(clock=lambda: now[0])
    early = front.embed("early")
    await until(front.n_waiting)
    worker = front.start()
    assert await lengths(early) == [5]
    worker.die()
    late = front.embed("late")
    await until(front.n_waiting)
    now[0] = MAX_OUTAGE_S + 1
    front.dispatcher._outages._look_again(front.dispatcher.group(MODEL))
    with pytest.raises(EngineUnavailable):
        await late


async def test_inputs_that_kill_workers_are_convicted_and_the_others_answered() -> None:
    front = Front()
    first = front.start(answers=False)
    good, bad = front.embed("good"), front.embed("poison")
    await until(lambda: len(embeds(first)) == 2)
    first.die(CRASHED)
    n_asked, dead = 0, [first]
    worker = front.start(answers=False)
    while not bad.done():
        await until(lambda worker=worker, n=n_asked: bad.done() or len(embeds(worker)) > n)
        if bad.done():
            break
        asked = embeds(worker)[n_asked]
        assert len(embeds(worker)) == n_asked + 1  # alone, since it may have killed the one before
        if asked.inputs == (TextPrompt("good"),):
            n_asked += 1
            worker.tell(Embedded(worker.epoch, asked.request, (Embedding(b"", 4),)))
        else:
            worker.die(CRASHED)
            dead.append(worker)
            n_asked, worker = 0, front.start(answers=False)
    with pytest.raises(EngineCrashSuspect):
        await bad
    assert sum(one.n_deaths_explained for one in dead) == 2
    worker.answers_embed = True
    assert await lengths(good) == [4]
    with pytest.raises(EngineCrashSuspect, match="refused for now"):
        await front.embed("poison")
    assert await lengths(front.embed("another")) == [7]


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_failed_pass_accuses_only_the_requests_that_were_in_it(is_named: bool) -> None:
    front = Front()
    worker = front.start(answers=False)
    answer = front.embed("text")
    for _ in range(2):
        await until(lambda worker=worker: embeds(worker))
        (asked,) = embeds(worker)
        named = (asked.request,) if is_named else ()
        failed = ExitReason(reason=Reason.DECODE_FAILED, at=0.0, requests=named)
        worker.die(failed)
        worker = front.start(answers=False)
    if is_named:
        with pytest.raises(EngineCrashSuspect):
            await answer
    else:
        await until(lambda: embeds(worker))
        worker.answers_embed = True
        worker._handle(embeds(worker)[0])
        assert await lengths(answer) == [4]


async def test_a_stream_beside_inputs_that_kill_workers_is_not_accused() -> None:
    front = Front()
    for _ in range(3):  # equal requests are recognized
        worker = front.start(answers=False)
        stream = front.dispatcher.submit(request("bystander"), ANONYMOUS)
        answer = front.embed("poison")
        await until(lambda worker=worker: worker.active and embeds(worker))
        worker.die(CRASHED)
        answer.cancel()
        worker = front.start()
        worker.auto = True
        assert await whole_texts(stream) == [text_of("bystander")]
        await asyncio.gather(answer, return_exceptions=True)
        worker.die()


async def test_inputs_and_sequences_that_died_together_twice_are_tried_one_by_one() -> None:
    front = Front()
    for _ in range(3):
        worker = front.start(answers=False)
        streams = [front.dispatcher.submit(request(name), ANONYMOUS) for name in ("a", "b")]
        answer = front.embed("text")
        await until(lambda worker=worker: len(worker.active) == 2 and embeds(worker))
        worker.die(CRASHED)
        worker = front.start(answers=False)
        await until(lambda worker=worker: embeds(worker))
        assert generates(worker.sent) == []
        worker.answers_embed = worker.auto = True
        worker._handle(embeds(worker)[0])
        assert await lengths(answer) == [4]
        for stream, name in zip(streams, ("a", "b"), strict=True):
            assert await whole_texts(stream) == [text_of(name)]
        worker.die()


async def test_nothing_is_embedded_beside_a_sequence_that_may_kill_workers() -> None:
    front = Front()
    worker = front.start()
    streams = [front.dispatcher.submit(request(name), ANONYMOUS) for name in ("a", "b")]
    for _ in range(2):  # both are in two fatal batches
        await until(lambda worker=worker: len(worker.active) == 2)
        worker.die(CRASHED)
        worker = front.start()
    await until(lambda: worker.active)  # one suspect, alone
    answer = front.embed("text")
    for _ in range(20):
        await asyncio.sleep(0)
    assert embeds(worker) == []
    worker.auto = True
    worker.go()
    for stream, name in zip(streams, ("a", "b"), strict=True):
        assert await whole_texts(stream) == [text_of(name)]
    assert await lengths(answer) == [4]


@pytest.mark.parametrize("client_leaves", [True, False])
async def test_a_suspect_waits_for_the_embeddings_of_its_worker(client_leaves: bool) -> None:
    front = Front()
    first = front.start()
    for name in ("a", "b"):
        front.dispatcher.submit(request(name), ANONYMOUS)
    await until(lambda: len(first.active) == 2)
    first.die(CRASHED)
    second = front.start()
    await until(lambda: len(second.active) == 2)
    idle = front.start(answers=False)
    answer = front.embed("text")
    await until(lambda: embeds(idle))
    second.die(CRASHED)
    for _ in range(20):
        await asyncio.sleep(0)
    assert generates(idle.sent) == []
    if client_leaves:
        answer.cancel()
    else:
        idle.answers_embed = True
        idle._handle(embeds(idle)[0])
    await until(lambda: len(generates(idle.sent)) == 1)
    await asyncio.gather(answer, return_exceptions=True)


async def test_all_vectors_of_an_answer_come_from_one_model() -> None:
    front = Front()
    old = front.start(answers=False, fingerprint="old")
    answer = front.embed(*["text"] * 500)
    await until(lambda: len(embeds(old)) == OPEN_PIECES)
    old.answers_embed = True
    old._handle(embeds(old)[0])
    front.start(fingerprint="new")
    old.answers_embed = False
    await until(lambda: len(embeds(old)) >= OPEN_PIECES)
    old.die()
    found = await answer
    assert {one.vector for one in found} == {found[0].vector}
    assert found[0].vector[4:8] == b"\x00\x00\xdc\x42"  # 110.0, of the n in "new"


async def test_a_model_that_is_replaced_again_and_again_ends_the_request() -> None:
    front = Front()
    worker = front.start(answers=False, fingerprint="0")
    answer = front.embed(*["text"] * 100)  # two pieces
    for number in range(1, 20):
        await until(lambda worker=worker: embeds(worker) or answer.done())
        if answer.done():
            break
        worker.answers_embed = True
        worker._handle(embeds(worker)[0])
        worker.lost = True
        front.dispatcher.worker_lost(worker, ExitReason(reason=Reason.SWAPPED, at=0.0))
        worker = front.start(answers=False, fingerprint=str(number))
    with pytest.raises(EngineUnavailable, match="again and again"):
        await answer


async def test_a_client_that_leaves_frees_the_worker() -> None:
    front = Front()
    worker = front.start(answers=False)
    answer = front.embed(*["text"] * 2048)
    await until(lambda: len(embeds(worker)) == OPEN_PIECES)
    assert not front.dispatcher.idle
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer
    cancelled = [message.request for message in worker.sent if isinstance(message, Cancel)]
    assert sorted(cancelled) == sorted(message.request for message in embeds(worker))
    assert front.dispatcher.idle
    assert front.dispatcher.ledger.requests.cancelled == 1


async def test_a_refused_piece_ends_the_request_and_cancels_the_others() -> None:
    front = Front()
    worker = front.start(answers=False)
    answer = front.embed(*["text"] * 2048)
    await until(lambda: len(embeds(worker)) == OPEN_PIECES)
    refused = embeds(worker)[1]
    worker.tell(Refused(worker.epoch, refused.request, "invalid_value", "no", "input"))
    with pytest.raises(InvalidRequest):
        await answer
    await until(lambda: sum(isinstance(one, Cancel) for one in worker.sent) == OPEN_PIECES - 1)
    assert front.dispatcher.ledger.requests.rejected == 1


async def test_a_front_that_stops_waits_for_embeddings_and_takes_no_new_ones() -> None:
    front = Front()
    worker = front.start(answers=False)
    answer = front.embed(*["text"] * 500)
    await until(lambda: len(embeds(worker)) == OPEN_PIECES)
    front.dispatcher.drain()
    idle = asyncio.create_task(front.dispatcher.wait_idle(60.0))
    with pytest.raises(Overloaded):
        await front.embed("late")
    worker.answers_embed = True
    for message in embeds(worker):
        worker._handle(message)
    assert await lengths(answer) == [4] * 500
    assert await idle


async def test_too_many_requests_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_turns, "MAX_REQUESTS", 2)
    monkeypatch.setattr(embedding_turns, "RESERVE", 0)
    front = Front()
    worker = front.start(answers=False)
    open_ones = [front.embed("text") for _ in range(2)]
    await until(lambda: len(embeds(worker)) == 2)
    with pytest.raises(Overloaded):
        await front.embed("third")
    for one in open_ones:
        one.cancel()
    await asyncio.gather(*open_ones, return_exceptions=True)


async def test_a_failed_fleet_ends_the_requests() -> None:
    front = Front()
    answer = front.embed("text")
    await until(front.n_waiting)
    front.fleet.change(FAILED)
    with pytest.raises(EngineUnavailable):
        await answer
