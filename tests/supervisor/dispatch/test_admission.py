"""Which sequences run, wait, and are refused."""

import pytest

from gpufc.config import AdmissionConfig
from gpufc.errors import InvalidRequest, Overloaded
from gpufc.ids import RequestNo
from supervisor.dispatch.admission import LEAST_GAIN, Admission
from tests.supervisor.dispatch.places import accept, admission, numbers, started


def test_the_default_queue_is_eight_times_the_slots() -> None:
    assert Admission(AdmissionConfig(max_concurrent_requests=10)).places == 90


def test_a_request_takes_all_its_places_or_none() -> None:
    places = admission()
    accept(places, 1, 2, 3, 4)
    with pytest.raises(Overloaded):
        accept(places, 5, 6)
    assert places.n_waiting == 4
    accept(places, 5)


def test_what_can_never_fit_is_the_clients_mistake() -> None:
    with pytest.raises(InvalidRequest):
        accept(admission(), 1, 2, 3, 4, 5, 6)


def test_the_first_one_with_a_prepared_prompt_starts_first() -> None:
    places = admission(slots=1)
    accept(places, 1, 2, 3)
    assert places.next() is None
    places.prepared(RequestNo(3))
    places.prepared(RequestNo(2))
    assert places.next() == 2
    places.start(RequestNo(2))
    assert places.next() is None
    places.release(RequestNo(2))
    places.prepared(RequestNo(1))
    assert places.next() == 1


def test_replays_start_before_new_sequences_the_shortest_first() -> None:
    places = admission(slots=3)
    accept(places, 1, 2, 3, 4)
    for number in numbers(1, 2, 3, 4):
        places.prepared(number)
    for number, n_tokens in ((2, 30), (1, 20), (3, 10)):
        places.start(RequestNo(number))
        places.put_back(RequestNo(number), n_tokens)
    order = []
    for _ in range(3):
        number = places.next()
        assert number is not None
        places.start(number)
        order.append(number)
    assert order == [3, 1, 2]
    places.release(RequestNo(3))
    assert places.next() == 4


def test_replicas_multiply_the_slots() -> None:
    assert admission(slots=2, queue=3, replicas=2).places == 7


def test_retry_after_follows_service_times_within_bounds() -> None:
    places = admission(slots=1)
    for _ in range(200):
        places.note_service_time(0.001)
    assert places.retry_after_s() == 1.0
    for _ in range(200):
        places.note_service_time(10.0)
    assert places.retry_after_s(2) == pytest.approx(20.0, rel=0.01)
    assert places.retry_after_s(100) == 600.0


def test_a_full_queue_of_one_owner_leaves_room_for_others_but_not_for_ever() -> None:
    places = admission(slots=2, queue=6)
    accept(places, *range(1, 9))
    with pytest.raises(Overloaded):
        accept(places, 9)
    accept(places, 10, owner="b")
    accept(places, 11, owner="c")
    with pytest.raises(Overloaded):
        accept(places, 12, owner="d")  # the reserve is as large as there are slots


def test_only_an_owner_with_less_than_an_even_share_gets_in_beyond_the_limit() -> None:
    places = admission(slots=3, queue=5)
    accept(places, *range(1, 5))
    accept(places, *range(5, 8), owner="b")
    accept(places, 8)
    with pytest.raises(Overloaded):
        accept(places, 9, 10, owner="b")  # has 3 of 8 places already
    accept(places, 9, owner="b")


def test_without_a_queue_no_sequence_waits() -> None:
    places = admission(slots=1, queue=0)
    accept(places, 1)
    with pytest.raises(Overloaded):
        accept(places, 2, owner="b")


def test_a_replay_goes_before_the_owner_with_the_next_turn() -> None:
    places = admission(slots=2, queue=8)
    accept(places, 1, 2, 3)
    accept(places, 4, owner="b")
    for number in numbers(1, 2, 3, 4):
        places.prepared(number)
    for number in numbers(1, 2):
        places.start(number)
    places.put_back(RequestNo(1), 100)
    assert places.next() == 1
    places.start(RequestNo(1))
    places.release(RequestNo(2))
    assert places.next() == 4


def test_abandoned_sequences_start_after_all_others_replays_included() -> None:
    places = admission(slots=4, queue=4)
    accept(places, 1, 2, 3, 4)
    for number in numbers(1, 2, 3):
        places.prepared(number)
    places.abandon(RequestNo(1))
    assert started(places) == [2, 3, 1]
    places.put_back(RequestNo(1), 5)
    places.prepared(RequestNo(4))
    assert started(places) == [4, 1]


def test_an_owner_without_a_slot_gets_one_from_the_owner_with_the_most() -> None:
    places = admission(slots=4, queue=12)
    accept(places, 1, 2, 3, owner="flood")
    accept(places, 4, owner="b")
    accept(places, 5, 6, owner="flood")
    for number in numbers(1, 2, 3, 4, 5, 6):
        places.prepared(number)
    assert started(places) == [1, 4, 2, 3]
    assert places.to_pause() is None  # the flood waits, and has slots
    accept(places, 7, 8, owner="c")
    accept(places, 9, owner="d")
    for number in numbers(7, 8, 9):
        places.prepared(number)
    assert [places.to_pause() for _ in range(3)] == [3, 2, None]
    for number in numbers(3, 2):
        places.put_back(number, 50)
    assert started(places) == [7, 9]
    assert places.to_pause() is None  # each has one
    places.release(RequestNo(1))
    assert started(places) == [2]  # before 3, 5 and 6 of its owner


def test_a_slot_that_is_shared_may_be_taken_before_its_sequence_has_stopped() -> None:
    places = admission(slots=3, queue=12)
    accept(places, 1, 2, 3, 4, owner="flood")
    for number in numbers(1, 2, 3, 4):
        places.prepared(number)
    assert started(places) == [1, 2, 3]
    accept(places, 5, owner="b")
    places.prepared(RequestNo(5))
    assert places.to_pause() == 3
    assert started(places) == [5]  # and not 4: the slot is one
    accept(places, 6, owner="c")
    places.prepared(RequestNo(6))
    assert [places.to_pause() for _ in range(2)] == [2, None]  # the slot of 3 is taken
    assert started(places) == [6]
    for number in numbers(3, 2):
        places.put_back(number, 50)
    assert places.next() is None
    assert places.to_pause() is None
    places.release(RequestNo(5))
    assert started(places) == [2]


def test_no_slot_is_given_up_while_one_is_free_beside_a_shared_one() -> None:
    places = admission(slots=4, queue=12)
    accept(places, 1, 2, 3, 4, owner="flood")
    accept(places, 5, owner="b")
    for number in numbers(1, 2, 3, 4):
        places.prepared(number)
    assert started(places) == [1, 2, 3, 4]
    places.prepared(RequestNo(5))
    assert places.to_pause() == 4
    assert started(places) == [5]
    places.release(RequestNo(1))  # 2, 3 and 5 have slots, 4 leaves its own to 5
    accept(places, 6, owner="c")
    places.prepared(RequestNo(6))
    assert places.to_pause() is None
    assert started(places) == [6]


def test_a_shared_slot_counts_once_where_abandoned_sequences_give_up_half() -> None:
    places = admission(slots=3, queue=12, replicas=2)
    accept(places, 1, 2, 3, owner="flood")
    accept(places, 4, 5, owner="b")
    for number in numbers(1, 2, 3):
        places.prepared(number)
        places.start(number)  # one replica is not there
    places.prepared(RequestNo(4))
    assert places.to_pause(is_full=True) == 3
    places.start(RequestNo(4))
    for number in numbers(1, 2):
        places.abandon(number)
    places.prepared(RequestNo(5))
    assert [places.to_pause(is_full=True) for _ in range(2)] == [2, None]


def test_a_promised_slot_is_free_once_its_sequence_has_ended_by_itself() -> None:
    places = admission(slots=2, queue=12)
    accept(places, 1, 2, owner="flood")
    accept(places, 3, owner="b")
    for number in numbers(1, 2):
        places.prepared(number)
    assert started(places) == [1, 2]
    places.prepared(RequestNo(3))
    assert places.to_pause() == 2
    places.release(RequestNo(2))
    assert started(places) == [3]
    assert places.n_running == 2
    assert places.to_pause() is None


def test_workers_without_room_are_full_also_with_fewer_sequences_than_slots() -> None:
    places = admission(slots=2, queue=12, replicas=2)
    accept(places, 1, 2, owner="flood")
    accept(places, 3, owner="b")
    for number in numbers(1, 2, 3):
        places.prepared(number)
    for number in numbers(1, 2):  # one replica is not there
        places.start(number)
    assert places.to_pause() is None
    assert [places.to_pause(is_full=True) for _ in range(2)] == [2, None]


def test_abandoned_sequences_give_up_half_of_the_slots_that_are_there() -> None:
    places = admission(slots=2, queue=12, replicas=2)
    accept(places, 1, 2, 3)
    for number in numbers(1, 2, 3):
        places.prepared(number)
    for number in numbers(1, 2):
        places.start(number)
        places.abandon(number)
    assert [places.to_pause(is_full=True) for _ in range(2)] == [2, None]


def test_one_that_gave_its_slot_up_makes_tokens_before_it_does_so_again() -> None:
    places = admission(slots=2, queue=12)
    made = {1: 0, 2: 5}
    places.n_made = lambda number: made[number]
    accept(places, 1, 2, owner="flood")
    for number in numbers(1, 2):
        places.prepared(number)
        places.start(number)

    def short_one(number: RequestNo) -> None:
        accept(places, number, owner="b")
        places.prepared(number)

    for short, paused in zip(numbers(3, 4), numbers(2, 1), strict=True):
        short_one(short)
        assert places.to_pause() == paused  # another one the second time
        places.put_back(paused, 9)
        assert started(places) == [short]
        places.release(short)
        assert started(places) == [paused]
    short_one(RequestNo(5))
    assert (places.to_pause(), places.defers) == (None, True)
    made[2] += LEAST_GAIN - 1
    assert places.to_pause() is None
    made[2] += 1
    assert (places.to_pause(), places.defers) == (2, False)


def test_slots_of_unknown_owners_are_not_shared() -> None:
    places = admission(slots=2, queue=12)
    for number in numbers(1, 2):
        places.take_in(number, 9)
    assert started(places) == [1, 2]
    accept(places, 3)
    places.prepared(RequestNo(3))
    assert places.to_pause() is None


def test_abandoned_sequences_give_up_slots_beyond_half_while_others_wait() -> None:
    places = admission(slots=4, queue=12)
    accept(places, *range(1, 5))
    for number in numbers(1, 2, 3, 4):
        places.prepared(number)
    started(places)
    for number in numbers(1, 2, 3, 4):
        places.abandon(number)
    assert places.to_pause() is None
    accept(places, 5, 6, 7)
    for number in numbers(5, 6, 7):
        places.prepared(number)
    assert [places.to_pause() for _ in range(3)] == [4, 3, None]
    for number in numbers(4, 3):
        places.put_back(number, 9)
    assert started(places) == [5, 6]
    assert places.to_pause() is None


def test_yielding_sequences_start_after_the_others_and_give_their_slots_up() -> None:
    places = admission(slots=2, queue=12)
    places.accept(numbers(1, 2, 3), "network", yields=True)
    for number in numbers(1, 2, 3):
        places.prepared(number)
    assert started(places) == [1, 2]
    assert places.to_pause() is None
    accept(places, 4)
    assert places.to_pause() is None  # its prompt is not prepared
    places.prepared(RequestNo(4))
    assert [places.to_pause() for _ in range(2)] == [2, None]
    places.put_back(RequestNo(2), 1)
    assert started(places) == [4]
    places.release(RequestNo(1))
    accept(places, 5)
    places.prepared(RequestNo(5))
    assert started(places) == [5]
    assert places.to_pause() is None
    for number in numbers(4, 5):
        places.release(number)
    assert started(places) == [2, 3]
    for number in numbers(2, 3):
        places.release(number)
    assert (places.n_running, places.n_waiting) == (0, 0)


def test_an_abandoned_yielding_sequence_yields_again_when_it_is_read() -> None:
    places = admission(slots=1, queue=9)
    places.accept(numbers(1), "network", yields=True)
    places.prepared(RequestNo(1))
    places.abandon(RequestNo(1))
    places.attend(RequestNo(1))
    accept(places, 2)
    places.prepared(RequestNo(2))
    assert started(places) == [2]


def test_a_sequence_that_is_read_again_has_its_old_stage() -> None:
    places = admission(slots=1, queue=9)
    accept(places, 1, 2, 3)
    for number in numbers(1, 2):
        places.prepared(number)
    started(places)
    for number in numbers(1, 2, 3):
        places.abandon(number)
    for number in numbers(3, 2, 1):
        places.attend(number)
    places.prepared(RequestNo(3))
    assert (places.n_running, places.n_waiting, places.n_abandoned) == (1, 2, 0)
    places.release(RequestNo(1))
    assert started(places) == [2]


def test_abandoned_sequences_take_half_of_the_places_from_others() -> None:
    places = admission(slots=2, queue=6)
    accept(places, *range(1, 9))
    for number in numbers(*range(1, 9)):
        places.abandon(number)
    accept(places, 9, 10, 11, 12)
    with pytest.raises(Overloaded):
        accept(places, 13)
    with pytest.raises(Overloaded):
        places.require_share()
    for number in numbers(*range(1, 6)):
        places.release(number)
    places.require_share()


def test_retry_after_follows_the_forecast_where_there_is_one() -> None:
    places = admission()
    places.forecast = lambda n_places: 40.0 * n_places
    assert [places.retry_after_s(n) for n in (1, 2, 100)] == [40.0, 80.0, 600.0]
