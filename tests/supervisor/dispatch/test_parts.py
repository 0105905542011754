"""Where a parser makes none, one or several parts of a text, all readers get the same parts."""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufc.config import LimitsConfig
from gpufc.errors import InvalidRequest
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Delta
from supervisor.answers.parts import BEGUN, Ended, Part, Reasoning, Text, joined
from supervisor.answers.whole import WholeAnswer, collected
from supervisor.dispatch.durable import Cursor, DurableKey, DurableRequest
from supervisor.dispatch.durable_store import DurableRequests
from supervisor.dispatch.stream import Position, ResponseStream, StreamEvent
from supervisor.dispatch.stream_log import StreamLog
from tests.supervisor.answers.laws import STOP, cut_texts, parts_of
from tests.supervisor.answers.toy import Toy
from tests.supervisor.dispatch.fakes import request

EPOCH = Epoch(1)
SHORT_S, LONG_S = 0.02, 60.0

histories = st.lists(cut_texts, min_size=1, max_size=3)
"""The texts of each choice."""


def toy_stream(n: int) -> ResponseStream:
    wanted = request(n=n, name="0123456789abcdef", parser=Toy)
    logs = [StreamLog(RequestNo(1 + choice), wanted, choice=choice) for choice in range(n)]
    for log in logs:
        log.prompt_tokens = (1,)
        log.dispatched(EPOCH)
    return ResponseStream(wanted, logs, on_cancel=lambda _: None)


def say(stream: ResponseStream, index: int, text: str, *, ends: bool = False) -> None:
    log = stream.logs[index]
    log.append(Delta(log.no, len(log.tokens), (7,), text, STOP if ends else None), EPOCH)
    if text or ends:
        stream.notify(index)


def durable(stream: ResponseStream) -> DurableRequest:
    store = DurableRequests(LimitsConfig(), clock=lambda: 0.0, call_later=lambda *_: None)
    return store.add(DurableKey("me", "k"), b"", 0, stream)


def by_choice(n: int, events: Iterable[StreamEvent]) -> list[tuple[Part, ...]]:
    found: list[list[Part]] = [[] for _ in range(n)]
    for event in events:
        assert event.parts
        found[event.index] += event.parts
    return [joined(parts) for parts in found]


def expected(histories: list[list[str]]) -> list[tuple[Part, ...]]:
    return [joined((BEGUN, *parts_of(Toy, pieces))) for pieces in histories]


def in_some_order(
    data: st.DataObject, histories: list[list[str]]
) -> Iterable[tuple[int, str, bool]]:
    """The choices' texts as steps bring them: index, text, whether it ends."""
    left = [[*pieces] for pieces in histories]
    while any(left):
        index = data.draw(st.sampled_from([i for i, pieces in enumerate(left) if pieces]))
        text = left[index].pop(0)
        yield index, text, not left[index]


@given(st.data(), histories)
def test_a_stream_gives_the_whole_answer_s_parts_whenever_it_is_read(
    data: st.DataObject, histories: list[list[str]]
) -> None:
    n = len(histories)
    stream = toy_stream(n)

    async def read() -> tuple[list[StreamEvent], list[WholeAnswer]]:
        events: list[StreamEvent] = []
        for index, text, ends in in_some_order(data, histories):
            say(stream, index, text, ends=ends)
            if data.draw(st.booleans()):
                events += await stream.next(0.0) or []
        while not stream.done:
            events += await stream.next(0.0) or []
        return events, stream.answers()

    events, answers = asyncio.run(read())
    assert by_choice(n, events) == expected(histories)
    assert answers == [collected(parts) for parts in expected(histories)]


@given(st.data(), histories)
def test_from_every_position_that_any_reader_was_given_the_missing_rest_comes(
    data: st.DataObject, histories: list[list[str]]
) -> None:
    n = len(histories)
    kept = durable(toy_stream(n))
    readers = [Cursor(kept, Position(0)) for _ in range(2)]
    had: list[list[StreamEvent]] = [[], []]
    told: list[tuple[Position, list[StreamEvent]]] = [(Position(0), [])]

    def read(number: int, limit: int) -> None:
        for event in readers[number].take(limit):
            had[number].append(event)
            assert len(event.parts) == 1
            assert event.position is not None
            told.append((event.position, [*had[number]]))

    for index, text, ends in in_some_order(data, histories):
        say(kept.stream, index, text, ends=ends)
        read(0, 1)
        if data.draw(st.booleans()):
            read(1, data.draw(st.integers(1, 5)))
    for number in (0, 1):
        while readers[number].has_news:
            read(number, 1000)
    for position, before in told:
        cursor = Cursor(kept, position)
        assert by_choice(n, cursor.known) == by_choice(n, before)
        after = cursor.take(1000)
        assert by_choice(n, [*before, *after]) == expected(histories)
        assert not cursor.has_news


def test_positions_within_a_text_are_those_of_its_parts() -> None:
    kept = durable(toy_stream(1))
    say(kept.stream, 0, "a<think>b</think>c<th")
    say(kept.stream, 0, "ink", ends=False)
    say(kept.stream, 0, ">d", ends=True)
    events = Cursor(kept, Position(0)).take(100)
    assert [(event.parts[0], event.position) for event in events] == [
        (BEGUN, Position(1)),
        (Text("a"), Position(1, 1)),
        (Reasoning("b"), Position(1, 2)),
        (Text("c"), Position(2)),
        (Reasoning("d"), Position(4)),
        (Ended(STOP), Position(5)),
    ]


@pytest.mark.parametrize("parts", [-1, 3, 4, 10**9])
def test_a_position_within_a_text_that_no_reader_was_given_is_refused(parts: int) -> None:
    kept = durable(toy_stream(1))
    say(kept.stream, 0, "a<think>b</think>c")
    Cursor(kept, Position(1, 2))
    with pytest.raises(InvalidRequest):
        Cursor(kept, Position(1, parts))
    with pytest.raises(InvalidRequest):
        Cursor(kept, Position(2, 1))


async def test_text_that_is_held_back_is_no_news_and_the_wait_goes_on() -> None:
    stream = toy_stream(1)
    say(stream, 0, "a")
    await stream.next(LONG_S)
    say(stream, 0, "<th")
    assert await stream.next(SHORT_S) is None
    reading = asyncio.create_task(stream.next(LONG_S))
    for text in ("in", "k", ">"):
        await asyncio.sleep(0)
        say(stream, 0, text)
    await asyncio.sleep(0)
    assert not reading.done()
    say(stream, 0, "b")
    assert await reading == [StreamEvent(0, [Reasoning("b")])]
    stream.cancel()


def test_every_reader_is_told_which_stop_string_ended_a_choice() -> None:
    wanted = request(stop=("x", "END"))
    log = StreamLog(RequestNo(1), wanted)
    log.prompt_tokens = (1,)
    log.dispatched(EPOCH)
    stream = ResponseStream(wanted, [log], on_cancel=lambda _: None)
    kept = durable(stream)
    stream.observe(kept)
    log.append(Delta(log.no, 0, (7,), "so", STOP, stopped_by=1), EPOCH)
    stream.notify(0)
    ended = Ended(STOP, stop="END")
    events = asyncio.run(stream.next(0.0)) or []
    assert by_choice(1, events) == [(BEGUN, Text("so"), ended)]
    assert by_choice(1, Cursor(kept, Position(0)).take(10)) == [(BEGUN, Text("so"), ended)]
    assert Cursor(kept, Position(3)).known[0].parts[-1] == ended
    assert [answer.ended for answer in stream.answers()] == [ended]
