"""A request restored from its gains is the request as it was then; readers have no more than that.

The outbox is pure: batches are taken and stored by hand.
"""

import random

import pytest

from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Delta, FinishReason
from supervisor.cells.outbox import Outbox
from supervisor.cells.records import Batch, Closed, Gain, decode_of_log, encode
from supervisor.cells.state import Known, Log, Sent, gain_since
from supervisor.dispatch.durable import Cursor, DurableRequest
from supervisor.dispatch.request import Reading
from supervisor.dispatch.stream import Position
from supervisor.dispatch.stream_log import StreamLog, logs_of
from tests.supervisor.dispatch.fakes import request
from tests.supervisor.dispatch.test_durable import EPOCH, Store, finish, say, text_in


def outbox() -> Outbox:
    return Outbox("run", lambda: None)


def shown(durable: DurableRequest) -> str:
    return "".join(map(text_in, Cursor(durable, Position(0)).take(10**6)))


def restored(known: Known, n: int) -> list[StreamLog]:
    logs = logs_of(request(n=n), map(RequestNo, range(1, n + 1)), "")
    known.fill(logs, None)
    return logs


def as_data(logs: list[StreamLog] | tuple[StreamLog, ...]) -> list[object]:
    return [
        (list(log.tokens), log.texts, log.finish, log.prompt_tokens, log.sampler_state, log.index)
        for log in logs
    ]


@pytest.mark.parametrize("seed", range(30))
def test_after_every_batch_the_request_can_be_restored_as_it_was(seed: int) -> None:
    chance = random.Random(seed)
    n = chance.randint(1, 3)
    durable, box = Store().add("k", n=n), outbox()
    box.follow("k", durable, 1, 0)
    left, known = list(range(n)), Known()
    while left:
        for _ in range(chance.randint(1, 4)):
            if left:
                index = chance.choice(left)
                end = FinishReason.STOP if chance.random() < 0.1 else None
                log = durable.stream.logs[index]
                text = chance.choice(["", "a", "<bc>"])
                state = (chance.random(),)
                delta = Delta(log.no, len(log.tokens), (7, 8), text, end, sampler_state=state)
                log.append(delta, EPOCH)
                if text or end is not None:
                    durable.stream.notify(index)
                if end is not None:
                    left.remove(index)
        batch = box.take()
        if batch is None or durable.is_over:
            continue
        batch = decode_of_log(encode(batch))
        assert isinstance(batch, Batch)
        before = shown(durable)
        for gain in batch.gains:
            known.add(gain)
        gained = {one.index for gain in batch.gains for one in gain.choices}
        logs = restored(known, n)
        assert not known.is_broken
        for index in gained:
            assert as_data(logs)[index] == as_data(durable.stream.logs)[index]
        assert known.order == list(zip(durable.choices, durable.marks, strict=True))
        assert shown(durable) == before  # nothing before it is stored
        box.stored()
        copy = Store().add("k", n=n)
        known.fill(copy.stream.logs, None)
        copy.restore(known.order, known.tags)
        assert shown(copy) == shown(durable)


def test_readers_get_text_once_it_is_stored_and_the_end_once_the_answer_is() -> None:
    durable, box = Store().add("k"), outbox()
    box.follow("k", durable, 1, 0)
    say(durable, "a")
    assert shown(durable) == ""
    assert box.take() is not None
    say(durable, "b")
    box.stored()
    assert shown(durable) == "a"
    finish(durable, "c")
    assert box.take() is None  # the whole answer is stored instead
    (entry,) = box.finishing.values()
    assert (durable.is_over, durable.is_told) == (True, False)
    box.finished(entry)
    assert durable.is_told
    assert shown(durable) == "abc"
    assert len(box) == 0
    batch = box.take()
    assert batch is not None
    assert (batch.gains, batch.ended) == ((), ("k",))


def test_a_batch_in_flight_stays_the_same_until_it_is_stored() -> None:
    durable, box = Store().add("k"), outbox()
    box.follow("k", durable, 1, 0)
    say(durable, "a")
    first = box.take()
    say(durable, "b")
    assert box.take() == first
    box.stored()
    second = box.take()
    assert second is not None
    assert (second.number, second.gains[0].at) == (2, 2)


def test_alone_readers_get_everything_under_another_tag_which_is_stored_later() -> None:
    durable, box = Store().add("k"), outbox()
    box.follow("k", durable, 1, 0)
    say(durable, "a")
    first = box.take()
    assert first is not None
    box.go_alone()
    assert shown(durable) == "a"
    say(durable, "b")
    assert shown(durable) == "ab"
    assert len(set(durable.tags)) == 2
    box.stored()
    box.rejoin()
    say(durable, "c")
    assert shown(durable) == "ab"
    second = box.take()
    assert second is not None
    known = Known()
    for batch in (first, second):
        known.add(batch.gains[0])
    assert known.tags == [(durable.tag, 0)]
    box.stored()
    assert shown(durable) == "abc"


def copy_of(known: Known) -> DurableRequest:
    """The request as a front has it that goes on from what is known."""
    copy = Store().add("k")
    known.fill(copy.stream.logs, None)
    copy.restore(known.order, known.tags)
    return copy


def test_a_tag_is_told_with_all_entries_that_a_front_alone_has_given_under_it() -> None:
    durable, box, known = Store().add("k"), outbox(), Known()
    box.follow("k", durable, 1, 0)
    box.go_alone()
    say(durable, "a")
    first = box.take()
    say(durable, "b")  # readers have it at once
    assert first is not None
    known.add(first.gains[0])
    box.stored()
    box.rejoin()
    given = durable.tag, Position(durable.n_given)
    assert not copy_of(known).has_given(*given)  # it would go on with other entries there
    second = box.take()
    assert second is not None
    known.add(second.gains[0])
    assert copy_of(known).has_given(*given)
    assert copy_of(known).n_given == durable.n_given


@pytest.mark.parametrize("seed", range(100))
def test_no_event_is_known_elsewhere_without_all_entries_before_it(seed: int) -> None:
    chance = random.Random(seed)
    durable, box, known = Store().add("k"), outbox(), Known()
    box.follow("k", durable, 1, 0)
    is_alone, given, batch = False, set(), None
    for _ in range(60):
        match chance.randrange(4):
            case 0:
                say(durable, chance.choice("abc"))
            case 1:
                batch = box.take()
            case 2 if batch is not None:
                for gain in batch.gains:
                    known.add(gain)
                box.stored()
                batch = None
            case 3 if batch is None:
                (box.rejoin if is_alone else box.go_alone)()
                is_alone = not is_alone
            case 3 if not is_alone:
                box.go_alone()
                is_alone = True
        given.add((durable.tag, durable.n_given))
        copy = copy_of(known)
        for tag, end in given:
            assert end <= copy.n_given or not copy.has_given(tag, Position(end))


def test_tags_of_a_front_that_did_not_tell_their_places_are_told_on() -> None:
    known = Known()
    known.add(Gain("k", 0, tags=("old",)))
    durable, box = Store().add("k"), outbox()
    durable.restore(known.order, known.tags)
    box.follow("k", durable, 1, 0)
    say(durable, "a")
    batch = box.take()
    assert batch is not None
    told = decode_of_log(encode(batch))
    assert isinstance(told, Batch)
    again = Known()
    again.add(told.gains[0])
    assert again.tags == [("old", None)]


def test_given_up_requests_go_on_for_their_readers_only() -> None:
    store, box = Store(), outbox()
    read, unread = store.add("read"), store.add("unread")
    for name, durable in (("read", read), ("unread", unread)):
        box.follow(name, durable, 1, 0)
        say(durable, "a")
    read.watch(lambda: None)
    assert list(box.give_up()) == [unread]
    assert len(box) == 0
    assert shown(read) == "a"
    say(read, "b")
    assert shown(read) == "ab"
    assert box.take() is None


def test_a_request_that_ends_without_an_answer_is_dropped() -> None:
    durable, box = Store().add("k"), outbox()
    box.follow("k", durable, 1, 0)
    say(durable, "a")
    durable.stream.cancel()
    assert durable.is_told
    assert (len(box), box.dropped, list(box.finishing)) == (0, [("k", 1)], [])


def test_a_moved_request_shows_no_more_and_its_end_is_not_the_request_s() -> None:
    durable, box = Store().add("k"), outbox()
    box.follow("k", durable, 1, 0)
    say(durable, "a")
    box.take()
    box.stored()
    say(durable, "b")
    box.move()
    durable.stream.cancel()
    assert (durable.is_told, durable.has_moved) == (True, True)
    assert shown(durable) == "a"
    assert box.dropped == []


def test_a_gain_that_does_not_follow_is_left_out_with_all_after_it() -> None:
    durable, sent = Store().add("k"), Sent()
    gains = []
    for text in "abcd":
        say(durable, text)
        gains.append(gain_since("k", durable, sent))
    known = Known()
    for gain in (gains[0], gains[1], gains[3], gains[2]):
        known.add(gain)
    assert known.is_broken
    assert restored(known, 1)[0].texts == ["a", "b"]


def test_a_log_s_ended_requests_are_not_open() -> None:
    gains = []
    for name in ("a", "b"):
        durable = Store().add(name)
        say(durable, "x")
        gains.append(gain_since(name, durable, Sent()))
    log = Log()
    log.add(Batch(1, tuple(gains)))
    log.add(Batch(2, (), ("a",)))
    assert (list(log.open), log.is_closed) == (["b"], False)
    log.add(Closed("other"))
    assert log.is_closed


def test_a_gain_beside_the_end_of_that_name_is_the_next_request_s() -> None:
    old, new = Store().add("k"), Store().add("k")
    box, log = outbox(), Log()
    box.follow("k", old, 1, 0)
    say(old, "old")
    log.add(box.take() or Closed("no batch"))
    old.stream.cancel()  # the batch is in flight
    box.follow("k", new, 2, 0)
    say(new, "new")
    box.stored()
    both = box.take()
    assert both is not None
    assert (len(both.gains), both.ended) == (1, ("k",))
    log.add(both)
    assert restored(log.open["k"], 1)[0].texts == ["new"]


@pytest.mark.parametrize(
    ("is_plain", "begins", "watches", "needs"),
    [
        (True, False, False, False),
        (False, False, False, True),
        (False, True, False, False),
        (False, True, True, True),
    ],
)
def test_a_client_is_needed_for_a_reading_that_only_it_has(
    is_plain: bool, begins: bool, watches: bool, needs: bool
) -> None:
    durable, known = Store().add("k"), Known()
    if begins:
        log = durable.stream.logs[0]
        if watches:
            log._reading = Reading(new_watch=lambda: lambda _text: False)
        log.dispatched(Epoch(1))
        say(durable, "a")
        known.add(gain_since("k", durable, Sent()))
    assert known.needs_client(1, is_plain=is_plain) is needs


def test_the_end_of_a_request_keeps_its_tag_when_another_one_follows() -> None:
    durable, box = Store().add("k"), outbox()
    box.follow("k", durable, 1, 0)
    box.go_alone()
    say(durable, "a")
    finish(durable)
    tag, closing = durable.tag, durable.closing
    assert list(box.give_up()) == []
    assert durable.tag != tag
    assert durable.has_given(tag, closing)
    assert not durable.has_given(tag, Position(closing.marks + 1))
