"""Durable requests without a loop: the order of events, every reader's events, the store."""

import contextlib
import itertools
import random
from collections.abc import Callable

import pytest

from gpufc.config import LimitsConfig
from gpufc.errors import (
    ContextLengthExceeded,
    EngineCrashed,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    RequestError,
    RequestTooLarge,
)
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Delta, FinishReason
from supervisor.answers.parts import Ended, Text
from supervisor.dispatch.durable import PROMPT_TOKEN_BYTES, Cursor, DurableKey, DurableRequest
from supervisor.dispatch.durable_store import SEQUENCE_BYTES, DurableRequests
from supervisor.dispatch.stream import Position, ResponseStream, StreamEvent
from supervisor.dispatch.stream_log import StreamLog
from tests.supervisor.dispatch.fakes import request

EPOCH = Epoch(1)
DIGEST = b"digest"
START = Position(0)


class Store:
    """A store with its clock and timers in the test's hand."""

    def __init__(self, **limits: float) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.store = DurableRequests(
            LimitsConfig(**limits),  # type: ignore[arg-type]
            clock=lambda: self.now,
            call_later=lambda delay, call: self.timers.append((self.now + delay, call)),
        )

    def add(self, name: str, *, principal: str = "me", n: int = 1, size: int = 0) -> DurableRequest:
        return self.store.add(DurableKey(principal, name), DIGEST, size, stream(n))

    def find(self, name: str, *, principal: str = "me") -> DurableRequest | None:
        return self.store.find(DurableKey(principal, name), DIGEST)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, call in due:
            call()


def stream(n: int = 1, n_prompt: int = 2) -> ResponseStream:
    wanted = request(n=n, name="0123456789abcdef")
    logs = [StreamLog(RequestNo(1 + choice), wanted, choice=choice) for choice in range(n)]
    for log in logs:
        log.prompt_tokens = tuple(range(n_prompt))
        log.dispatched(EPOCH)
    return ResponseStream(wanted, logs, on_cancel=lambda _: None, fingerprint=lambda: "f")


def say(
    durable: DurableRequest, text: str, *, index: int = 0, finish: FinishReason | None = None
) -> None:
    """One token, as a group logs and announces it."""
    log = durable.stream.logs[index]
    log.append(Delta(log.no, len(log.tokens), (7,), text, finish), EPOCH)
    if text or finish is not None:
        durable.stream.notify(index)


def finish(durable: DurableRequest, text: str = "") -> None:
    for index in range(len(durable.stream.logs)):
        say(durable, text, index=index, finish=FinishReason.STOP)


def read(durable: DurableRequest, position: int = 0) -> list[tuple[int, str, bool]]:
    """A reader's events from there: position, text, whether it is a choice's end."""
    events = Cursor(durable, Position(position)).take(10**6)
    return [(marks(event), text_in(event), is_end(event)) for event in events]


def marks(event: StreamEvent) -> int:
    assert event.position is not None
    assert event.position.parts == 0, "plain text makes one part of an entry at most"
    return event.position.marks


def text_in(event: StreamEvent) -> str:
    return "".join(part.text for part in event.parts if isinstance(part, Text))


def is_end(event: StreamEvent) -> bool:
    return any(isinstance(part, Ended) for part in event.parts)


# the order


def test_a_reader_gets_begin_text_and_end_apart_and_gathered_text_in_one() -> None:
    durable = Store().add("k")
    for text in ("a", "", "b"):
        say(durable, text)
    say(durable, "c", finish=FinishReason.LENGTH)
    assert read(durable) == [(1, "", False), (4, "abc", False), (5, "", True)]
    assert read(durable, 2) == [(4, "bc", False), (5, "", True)]
    assert read(durable, 5) == []


def test_a_reader_that_keeps_up_gets_each_piece_once() -> None:
    durable = Store().add("k")
    cursor = Cursor(durable, START)
    texts = []
    for text in "abc":
        say(durable, text)
        assert cursor.has_news
        texts.append([text_in(event) for event in cursor.take(100)])
    assert texts == [["", "a"], ["b"], ["c"]]
    assert not cursor.has_news


@pytest.mark.parametrize("seed", range(20))
def test_from_every_position_ever_told_exactly_the_missing_rest_comes(seed: int) -> None:
    chance = random.Random(seed)
    n = chance.randint(1, 4)
    durable = Store().add("k", n=n)
    open_choices = list(range(n))
    slow, told = Cursor(durable, START), [(0, [""] * n, 0)]
    count = itertools.count()
    while open_choices:
        index = chance.choice(open_choices)
        end = FinishReason.STOP if chance.random() < 0.1 else None
        say(durable, chance.choice(["", f"<{index}.{next(count)}>"]), index=index, finish=end)
        if end is not None:
            open_choices.remove(index)
        if chance.random() < 0.3:
            for event in slow.take(chance.randint(1, 5)):
                _, texts, n_ends = told[-1]
                texts = [*texts]
                texts[event.index] += text_in(event)
                told.append((marks(event), texts, n_ends + is_end(event)))
    whole = ["".join(log.texts) for log in durable.stream.logs]
    for position, texts, n_ends in told:
        cursor = Cursor(durable, Position(position))
        begun = {event.index for event in cursor.known}
        for event in cursor.take(10**6):
            if text_in(event):
                assert event.index in begun
            elif not is_end(event):
                assert event.index not in begun
                begun.add(event.index)
            texts[event.index] += text_in(event)
            n_ends += is_end(event)
        assert texts == whole
        assert n_ends == n
        assert not cursor.has_news


@pytest.mark.parametrize("position", [-1, 3, 10**9])
def test_a_position_that_no_reader_was_told_is_refused(position: int) -> None:
    durable = Store().add("k")
    say(durable, "a")
    with pytest.raises(InvalidRequest) as error:
        Cursor(durable, Position(position))
    assert error.value.param == "Last-Event-ID"


def test_what_comes_after_everything_has_a_position_only_after_the_end() -> None:
    durable = Store().add("k")
    say(durable, "a")
    with pytest.raises(InvalidRequest):
        Cursor(durable, durable.closing)
    finish(durable)
    assert Cursor(durable, durable.closing).is_closed
    assert not Cursor(durable, Position(durable.closing.marks - 1)).is_closed


def test_watchers_hear_of_each_piece_and_of_the_end() -> None:
    durable = Store().add("k")
    heard: list[bool] = []
    durable.watch(lambda: heard.append(durable.is_over))
    say(durable, "a")
    durable.stream.fail(EngineCrashed("gone"))
    assert heard == [False, True]


# the store


def test_a_request_is_found_while_it_runs_and_for_a_window_after_its_end() -> None:
    store = Store(durable_window_s=60)
    durable = store.add("k")
    store.advance(1000)
    assert store.find("k") is durable
    finish(durable)
    store.advance(59)
    assert store.find("k") is durable
    store.advance(2)
    assert store.find("k") is None
    assert (len(store.store), store.store.n_bytes) == (0, 0)


def test_finished_requests_are_dropped_in_time_without_a_lookup() -> None:
    store = Store(durable_window_s=60)
    for name in "abc":
        finish(store.add(name))
        store.advance(20)
    assert len(store.timers) == 1
    store.advance(1)
    assert len(store.store) == 2
    store.advance(100)
    assert len(store.store) == 0
    assert store.timers == []


def test_another_principal_s_equal_key_is_another_key() -> None:
    store = Store()
    mine = store.add("k")
    assert store.find("k", principal="you") is None
    yours = store.add("k", principal="you")
    assert store.find("k") is mine
    assert store.find("k", principal="you") is yours


def test_a_key_of_another_request_is_refused_running_or_finished() -> None:
    store = Store()
    durable = store.add("k")
    for _ in range(2):
        with pytest.raises(InvalidRequest) as error:
            store.store.find(DurableKey("me", "k"), b"other")
        assert error.value.param == "Idempotency-Key"
        if not durable.is_over:
            finish(durable)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (EngineCrashed("x"), True),
        (EngineUnavailable("x"), False),
        (Overloaded("x"), False),
        (ContextLengthExceeded("x"), False),
    ],
)
def test_only_the_generation_s_own_errors_are_kept(error: RequestError, kept: bool) -> None:
    store = Store()
    durable = store.add("k")
    durable.stream.fail(error)
    assert durable.is_over
    assert (store.find("k") is durable) is kept
    assert (len(store.store), store.store.n_bytes > 0) == (int(kept), kept)


def test_too_many_drop_the_oldest_finished_first_and_never_a_running_one() -> None:
    store = Store(max_durable_requests=3)
    running = store.add("running")
    for name in "ab":
        finish(store.add(name))
    store.store.require_room("me", 0, 1)
    store.add("c")
    assert store.find("a") is None
    assert store.find("b") is not None
    store.add("d")
    assert store.find("b") is None
    assert store.find("running") is running
    with pytest.raises(Overloaded) as error:
        store.store.require_room("me", 0, 1)
    assert error.value.retry_after_s
    finish(running)
    store.store.require_room("me", 0, 1)


@pytest.mark.parametrize("limits", [{"max_durable_requests": 3}, {"max_durable_bytes": 65_536}])
def test_no_principal_has_the_answers_of_others_dropped(limits: dict[str, int]) -> None:
    store = Store(**limits)
    finish(store.add("mine", size=10_000))
    for number in range(8):
        finish(store.add(str(number), principal="flood", size=10_000))
    assert store.find("mine") is not None
    assert store.find("7", principal="flood") is not None
    assert store.find("0", principal="flood") is None


def fill(store: Store, principal: str) -> list[DurableRequest]:
    """Running requests of a principal, as many as it may have."""
    running: list[DurableRequest] = []
    with contextlib.suppress(Overloaded):
        while len(running) < 100:
            store.store.require_room(principal, 10_000, 1)
            running.append(store.add(str(len(running)), principal=principal, size=10_000))
    return running


@pytest.mark.parametrize("limits", [{"max_durable_requests": 4}, {"max_durable_bytes": 65_536}])
def test_running_requests_drop_no_answer_of_a_principal_with_less(limits: dict[str, int]) -> None:
    store = Store(**limits)
    finish(store.add("mine", size=10_000))
    flood = fill(store, "flood")
    assert len(flood) == 3
    for _ in range(5):
        say(flood[0], "x" * 10_000)
    for one in flood:
        finish(one)
    assert store.find("mine") is not None
    assert len(store.store) <= store.store._limits.max_durable_requests
    assert store.store.n_bytes <= store.store._limits.max_durable_bytes


@pytest.mark.parametrize(("size", "fits"), [(15_000, True), (30_000, False)])
def test_an_admitted_request_finds_room_among_the_answers_that_it_may_drop(
    size: int, fits: bool
) -> None:
    store = Store(max_durable_bytes=100_000)
    for number in range(6):
        finish(store.add(str(number), principal="other", size=10_000 - SEQUENCE_BYTES))
    store.add("running", size=30_000 - SEQUENCE_BYTES)
    with contextlib.nullcontext() if fits else pytest.raises(Overloaded):
        store.store.require_room("me", size - SEQUENCE_BYTES, 1)
    store.add("asked", size=size - SEQUENCE_BYTES)
    assert (store.store.n_bytes <= 100_000) == fits


def test_of_principals_with_as_much_the_oldest_answer_makes_room() -> None:
    store = Store(max_durable_requests=3)
    for name in "abc":
        finish(store.add(name, principal=name))
    store.store.require_room("d", 0, 1)
    finish(store.add("d", principal="d"))
    found = [name for name in "abcd" if store.find(name, principal=name) is not None]
    assert found == ["b", "c", "d"]


def test_bytes_are_counted_and_bounded() -> None:
    store = Store(max_durable_bytes=100_000)
    first = store.add("first", size=10_000)
    assert store.store.n_bytes == 10_000 + SEQUENCE_BYTES
    finish(first, "x" * 20_000)
    assert store.store.n_bytes >= 30_000 + SEQUENCE_BYTES + 2 * PROMPT_TOKEN_BYTES
    second = store.add("second")
    for _ in range(6):
        say(second, "y" * 10_000)
    assert store.find("first") is not None
    say(second, "y" * 10_000)
    assert store.find("first") is None
    with pytest.raises(Overloaded):
        store.store.require_room("me", 30_000, 1)
    for _ in range(3):
        say(second, "y" * 10_000)  # a running one goes on; it is too large to be kept
    finish(second)
    assert store.find("second") is None
    assert (len(store.store), store.store.n_bytes) == (0, 0)


def test_a_request_that_could_never_be_kept_is_told_so() -> None:
    with pytest.raises(RequestTooLarge):
        Store(max_durable_bytes=65_536).store.require_room("me", 65_536, 1)


def test_a_dropped_request_stays_readable_for_its_readers() -> None:
    store = Store(max_durable_requests=1)
    durable = store.add("a")
    cursor = Cursor(durable, START)
    finish(durable, "text")
    store.add("b")
    assert store.find("a") is None
    assert "".join(text_in(event) for event in cursor.take(100)) == "text"


def test_the_counts_come_back_to_nothing_after_any_history() -> None:
    chance = random.Random(7)
    store = Store(durable_window_s=5, max_durable_requests=10, max_durable_bytes=200_000)
    running: list[DurableRequest] = []
    for number in range(2000):
        if len(running) < 10 and chance.random() < 0.5:
            running.append(store.add(str(number), n=chance.randint(1, 3)))
        if running:
            durable = running.pop(chance.randrange(len(running)))
            if chance.random() < 0.5:
                say(durable, "z" * chance.randint(1, 3000))
                running.append(durable)
            elif chance.random() < 0.8:
                finish(durable, "end")
            else:
                durable.stream.fail(chance.choice([Overloaded("x"), EngineCrashed("x")]))
        store.advance(chance.random())
        assert len(running) <= len(store.store) <= 10
    for durable in running:
        finish(durable)
    store.advance(6)
    store.advance(6)
    assert (len(store.store), store.store.n_bytes) == (0, 0)
