"""Rates and percentiles over bounded memory."""

from supervisor.dispatch.ledger import RATE_WINDOW_S, SAMPLES, Durations, Percentiles, Rate


def test_a_rate_covers_the_last_full_seconds() -> None:
    rate = Rate()
    for second in range(100):
        rate.add(5, float(second))
    assert rate.per_second(100.0) == 5.0
    assert rate.per_second(100.0 + RATE_WINDOW_S / 2) == 2.5
    assert rate.per_second(200.0) == 0.0


def test_a_rate_of_now_is_known_from_the_first_seconds_on() -> None:
    rate = Rate()
    assert rate.lately(0.0) == 0.0
    rate.add(40, 100.5)
    assert rate.lately(100.6) == 40.0
    rate.add(40, 101.5)
    assert rate.lately(102.0) == 40.0
    assert rate.lately(200.0) == 0.0


def test_percentiles_are_of_the_latest_samples() -> None:
    durations = Durations()
    assert durations.percentiles() == Percentiles(None, None)
    for value in range(SAMPLES * 2):
        durations.add(float(value >= SAMPLES))
    assert durations.percentiles() == Percentiles(1.0, 1.0)
