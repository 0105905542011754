"""Limits of a key: how much, and when again."""

import pytest

from gpufc.errors import InvalidRequest, RateLimited
from supervisor.access.account import KeyAccount
from supervisor.access.bucket import Bucket
from supervisor.access.keys import Key
from tests.supervisor.access.test_keys import Clock, key


class Held:
    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        self.account = KeyAccount(key("a", **limits), self.clock)

    def wait_s(self) -> float:
        """The wait that a refusal of a request names."""
        with pytest.raises(RateLimited) as refused:
            self.account.note_request()
        assert refused.value.retry_after_s is not None
        return refused.value.retry_after_s

    def busy_s(self, n: int) -> float:
        with pytest.raises(RateLimited) as refused:
            self.account.require_room(n)
        assert refused.value.retry_after_s is not None
        return refused.value.retry_after_s


def test_a_bucket_begins_full_and_gains_evenly() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(60, 0.0)
    assert bucket.wait_s(0.0) == pytest.approx(1.0)
    assert bucket.wait_s(0.25) == pytest.approx(0.75)
    assert bucket.wait_s(1.5) == 0.0


def test_a_bucket_holds_no_more_than_a_minutes_worth() -> None:
    bucket = Bucket(10, 0.0)
    bucket.wait_s(1e6)
    bucket.take(10, 1e6)
    assert bucket.wait_s(1e6) == pytest.approx(6.0)


def test_debt_is_paid_back_by_waiting() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(90, 0.0)
    assert bucket.wait_s(0.0) == pytest.approx(31.0)


def test_a_clock_that_goes_back_takes_nothing() -> None:
    bucket = Bucket(60, 100.0)
    bucket.take(60, 100.0)
    assert bucket.wait_s(50.0) == pytest.approx(1.0)


def test_without_limits_nothing_is_refused() -> None:
    held = Held()
    for _ in range(1000):
        held.account.note_request()
        held.account.require_room(64)
        held.account.open(64)
        held.account.close(64, 10_000, 1.0)


def test_requests_a_minute() -> None:
    held = Held(requests_per_minute=3)
    for _ in range(3):
        held.account.note_request()
    assert held.wait_s() == pytest.approx(20.0)
    held.clock.now += 19.0
    assert held.wait_s() == pytest.approx(1.0)  # a refused request costs nothing
    held.clock.now += 1.5
    held.account.note_request()


def test_tokens_a_minute_count_when_they_are_known() -> None:
    held = Held(tokens_per_minute=60)
    held.account.note_request()
    held.account.open(1)
    held.account.note_request()
    held.account.close(1, 120, 1.0)
    assert held.wait_s() == pytest.approx(61.0)
    held.clock.now += 61.5
    held.account.note_request()


def test_sequences_at_once() -> None:
    held = Held(concurrent=3)
    held.account.require_room(2)
    held.account.open(2)
    assert held.busy_s(2) > 0.0
    held.account.require_room(1)
    held.account.close(2, 0, 1.0)
    held.account.require_room(3)
    with pytest.raises(InvalidRequest, match="this key may run 3 at once"):
        held.account.require_room(4)


def test_the_wait_for_a_sequences_end_follows_the_durations_so_far() -> None:
    held = Held(concurrent=1)
    for _ in range(200):
        held.account.open(1)
        held.account.close(1, 0, 30.0)
    held.account.open(1)
    assert held.busy_s(1) == pytest.approx(30.0, rel=0.01)


def test_a_limit_that_stays_keeps_its_balance_and_one_that_changes_begins_anew() -> None:
    held = Held(requests_per_minute=1)
    held.account.note_request()
    again: Key = key("a", requests_per_minute=1, concurrent=5)
    held.account.hold_to(again)
    assert held.wait_s() == pytest.approx(60.0)
    held.account.hold_to(key("a", requests_per_minute=2))
    held.account.note_request()
