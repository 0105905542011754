"""`keep_alive` in every form that clients send."""

import pytest

from supervisor.http.ollama.life import LONGEST_S, is_over, seconds_of


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (300, 300.0),
        (0, 0.0),
        (-1, -1.0),
        (2.5, 2.5),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("0s", 0.0),
        ("0", 0.0),
        ("500ms", 0.5),
        ("-1", -1.0),
        ("-1m", -1.0),
        ("20", 20.0),
        (" 10s ", 10.0),
        ("1000000h", LONGEST_S),
        (10**30, LONGEST_S),
        ("soon", None),
        ("5 m", None),
        ("5x", None),
        ("", None),
        (None, None),
        (True, None),
        ({}, None),
        ("1" * 65, None),
    ],
)
def test_a_duration_in_seconds(given: object, seconds: float | None) -> None:
    assert seconds_of(given) == seconds


@pytest.mark.parametrize("given", [0, "0", "0s", "0h0m", "-0", 0.0])
def test_zero_is_over_at_once(given: object) -> None:
    assert is_over(given)
    assert seconds_of(given) == 0.0


@pytest.mark.parametrize("given", ["abc0", "0x", False, None, "", "00:00", 0.1])
def test_what_is_no_duration_of_zero_unloads_nothing(given: object) -> None:
    assert not is_over(given)
