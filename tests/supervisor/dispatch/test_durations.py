"""Histograms that only grow, and percentiles of the latest durations."""

import pytest

from supervisor.dispatch.durations import (
    INTER_TOKEN,
    REQUEST,
    SAMPLES,
    TIME_TO_FIRST_TOKEN,
    Durations,
    Histogram,
    Latest,
    Percentiles,
)

BOUNDS = (1.0, 2.0)


def test_percentiles_are_of_the_latest_samples_of_all_models() -> None:
    latest = Latest()
    models = [Durations(BOUNDS, latest), Durations(BOUNDS, latest)]
    assert latest.percentiles() == Percentiles(None, None)
    for value in range(SAMPLES * 2):
        models[value % 2].add(float(value >= SAMPLES))
    assert latest.percentiles() == Percentiles(1.0, 1.0)
    assert [one.histogram.n_durations for one in models] == [SAMPLES, SAMPLES]


def test_a_duration_counts_in_the_first_bucket_that_holds_it() -> None:
    durations = Durations(BOUNDS, Latest())
    for seconds in (0.0, 1.0, 1.5, 2.0, 2.5, 100.0):
        durations.add(seconds)
    assert durations.histogram == Histogram((2, 2, 2), 107.0)


def test_a_histogram_with_other_buckets_is_dropped() -> None:
    durations = Durations(BOUNDS, Latest())
    durations.restore(Histogram((1, 2), 3.0))
    assert durations.histogram == Histogram((0, 0, 0), 0.0)
    durations.restore(Histogram((1, 2, 3), 4.0))
    durations.add(0.5)
    assert durations.histogram == Histogram((2, 2, 3), 4.5)


@pytest.mark.parametrize("bounds", [INTER_TOKEN, REQUEST, TIME_TO_FIRST_TOKEN])
def test_the_bounds_are_in_order(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
