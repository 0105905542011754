"""Whether and when a worker that died is started again."""

import random

import pytest

from supervisor.fleet.restart_policy import (
    BACKOFF_LEAST_S,
    Decision,
    GiveUp,
    RestartAfter,
    RestartPolicy,
)


class Highest(random.Random):
    """Always the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return a


def test_who_produced_a_token_comes_back_at_once() -> None:
    policy = RestartPolicy(100, Highest())
    for second in range(20):
        assert policy.died(second * 10.0, was_ready=True, produced_token=True) == RestartAfter(0.0)


def test_who_did_not_waits_twice_as_long_each_time_up_to_30_s() -> None:
    policy = RestartPolicy(100, Highest())
    waits = [policy.died(n * 100.0, was_ready=True, produced_token=False) for n in range(9)]
    assert waits == [RestartAfter(s) for s in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]


def test_a_token_ends_the_waiting() -> None:
    policy = RestartPolicy(100, Highest())
    for n in range(5):
        policy.died(n * 100.0, was_ready=True, produced_token=False)
    policy.died(600.0, was_ready=True, produced_token=True)
    assert policy.died(700.0, was_ready=True, produced_token=False) == RestartAfter(0.5)


def test_the_shortest_wait_is_no_tight_loop() -> None:
    policy = RestartPolicy(100, Lowest())
    decision = policy.died(0.0, was_ready=True, produced_token=False)
    assert decision == RestartAfter(BACKOFF_LEAST_S)


def test_three_starts_in_a_row_that_never_became_ready() -> None:
    policy = RestartPolicy(100, Highest())
    assert not given_up(policy.died(0.0, was_ready=False, produced_token=False))
    assert not given_up(policy.died(100.0, was_ready=False, produced_token=False))
    assert given_up(policy.died(200.0, was_ready=False, produced_token=False))


def test_ready_once_starts_the_row_anew() -> None:
    policy = RestartPolicy(100, Highest())
    for n, was_ready in enumerate([False, False, True, False, False]):
        decision = policy.died(n * 100.0, was_ready=was_ready, produced_token=False)
        assert not given_up(decision)


@pytest.mark.parametrize(("apart_s", "expected"), [(5.0, True), (6.0, True), (7.0, False)])
def test_ten_deaths_within_a_minute(apart_s: float, expected: bool) -> None:
    policy = RestartPolicy(10, Highest())
    decisions = [policy.died(n * apart_s, was_ready=True, produced_token=True) for n in range(10)]
    assert not any(given_up(decision) for decision in decisions[:-1])
    assert given_up(decisions[-1]) is expected


def test_reset_forgets() -> None:
    policy = RestartPolicy(2, Highest())
    policy.died(0.0, was_ready=False, produced_token=False)
    policy.reset()
    assert policy.died(1.0, was_ready=False, produced_token=False) == RestartAfter(0.5)


def given_up(decision: Decision) -> bool:
    return isinstance(decision, GiveUp)


def test_refusals_wait_longer_each_time_and_count_as_no_death() -> None:
    policy = RestartPolicy(2, Highest())
    waits = [policy.refused().delay_s for _ in range(9)]
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert policy.died(0.0, was_ready=True, produced_token=True) == RestartAfter(0.0)
    policy.spawned()
    assert policy.refused() == RestartAfter(0.25)


def test_refusals_of_siblings_are_spread() -> None:
    policy = RestartPolicy(2, Lowest())
    assert [policy.refused().delay_s for _ in range(3)] == [0.125, 0.25, 0.5]
