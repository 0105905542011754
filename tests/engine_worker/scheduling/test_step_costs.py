"""A step's cost is what was seen, a line where nothing was, and never held against for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.scheduling.step_costs import StepCosts


def costs(*computed: tuple[int, float]) -> StepCosts:
    found = StepCosts()
    for n_tokens, seconds in computed:
        found.computed(n_tokens, seconds)
    return found


def test_nothing_is_known_before_two_sizes_were_seen() -> None:
    assert costs().seconds(1, 1) is None
    assert costs((1, 0.01), (1, 0.01)).seconds(1, 1) is None
    assert costs((1, 0.01), (100, 0.5)).seconds(1, 1) == pytest.approx(0.01)


def test_between_two_sizes_lies_a_line_and_beyond_them_it_goes_on() -> None:
    found = costs((1, 0.01), (5, 0.03), (101, 0.51))
    assert found.seconds(3, 0) == pytest.approx(0.02)
    assert found.seconds(53, 0) == pytest.approx(0.27)
    assert found.seconds(201, 0) == pytest.approx(1.01)


def test_fewer_tokens_than_were_seen_cost_what_the_fewest_did() -> None:
    assert costs((8, 0.05), (128, 0.5)).seconds(1, 1) == pytest.approx(0.05)


def test_outputs_cost_extra_once_two_numbers_of_them_were_seen() -> None:
    found = costs((1, 0.01), (101, 0.51))
    found.sampled(1, 0.001)
    assert found.seconds(11, 11) == pytest.approx(0.06)
    found.sampled(11, 0.006)
    assert found.seconds(11, 11) == pytest.approx(0.066)
    assert found.seconds(11, 1) == pytest.approx(0.061)


def test_a_size_that_became_dearer_is_followed() -> None:
    found = costs((1, 0.01), (128, 0.5))
    for _ in range(60):
        found.computed(1, 0.02)
    assert found.seconds(1, 1) == pytest.approx(0.02, rel=0.05)


def test_one_slow_step_moves_a_known_size_little() -> None:
    found = costs((128, 0.5), *[(1, 0.01)] * 16)
    found.computed(1, 0.1)
    assert found.seconds(1, 1) == pytest.approx(0.01 + 0.09 / 16)


def test_a_size_not_seen_for_long_is_interpolated_again() -> None:
    found = costs((1, 0.01), (101, 0.51), (9, 0.5))
    for _ in range(300):
        found.computed(1, 0.01)
    assert found.seconds(9, 1) == pytest.approx(0.05)
    assert found.seconds(101, 1) == pytest.approx(0.51)


def test_a_larger_step_that_took_less_shows_what_a_smaller_one_can_take() -> None:
    found = costs((1, 0.01), (16, 0.9), (32, 0.1), (48, 0.05))
    assert found.seconds(32, 1) == found.seconds(64, 1) == pytest.approx(0.05)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-6, 10.0)), min_size=1),
    st.integers(1, 5000),
    st.integers(0, 100),
)
def test_more_tokens_never_cost_less(
    computed: list[tuple[int, float]], n_tokens: int, n_more: int
) -> None:
    found = costs(*computed)
    fewer, more = found.seconds(n_tokens, 1), found.seconds(n_tokens + n_more, 1)
    if fewer is not None and more is not None:
        assert 0.0 < fewer <= more * (1 + 1e-9)


def test_a_step_is_settled_when_the_two_before_had_as_many_tokens() -> None:
    costs = StepCosts()
    costs.computed(700, 0.018)
    for seconds in (0.006, 0.006, 0.001, 0.001):
        costs.computed(1, seconds)
    assert costs.settled_seconds(1, 1) == pytest.approx(0.001)
    assert costs.settled_seconds(8, 8) is None
    for seconds in (0.03, 0.01):
        costs.computed(8, seconds)
    assert costs.settled_seconds(8, 8) is None
    costs.computed(8, 0.002)
    costs.sampled(8, 0.0005)
    assert costs.settled_seconds(8, 8) == pytest.approx(0.0025)
    assert costs.seconds(8, 1) == pytest.approx(0.014), "a client waits for the others too"


def test_a_settled_step_that_was_slow_by_accident_is_forgotten() -> None:
    costs = StepCosts()
    for seconds in (0.03, 0.01, 0.5):
        costs.computed(8, seconds)
        costs.sampled(8, 0.1)
    assert costs.settled_seconds(8, 8) == pytest.approx(0.6)
    for _ in range(300):
        costs.computed(1, 0.001)
        costs.sampled(1, 0.0002)
    assert costs.settled_seconds(8, 8) is None
    assert costs.settled_seconds(1, 1) == pytest.approx(0.0012)
