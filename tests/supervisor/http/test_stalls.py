"""Which connections are given up because their clients take nothing: pure."""

from supervisor.http.edge.stalls import Stalls


def test_a_backlog_that_does_not_fall_for_the_limit_is_a_stall() -> None:
    stalls = Stalls[str](10.0)
    assert stalls.look({"a": 100, "b": 100}, 0.0) == []
    assert stalls.look({"a": 100, "b": 99}, 9.9) == []
    assert stalls.look({"a": 100, "b": 99}, 10.0) == ["a"]
    assert stalls.look({"b": 99}, 20.0) == ["b"]


def test_bytes_that_are_added_are_no_progress() -> None:
    stalls = Stalls[str](10.0)
    assert stalls.look({"a": 100}, 0.0) == []
    assert stalls.look({"a": 120}, 5.0) == []
    assert stalls.look({"a": 140}, 10.0) == ["a"]


def test_a_slow_reader_and_an_idle_connection_are_none() -> None:
    stalls = Stalls[str](10.0)
    for second in range(100):
        backlogs = {"slow": 1000 - second // 9, "idle": 0}
        assert stalls.look(backlogs, float(second)) == []


def test_a_backlog_that_was_emptied_begins_anew() -> None:
    stalls = Stalls[str](10.0)
    assert stalls.look({"a": 100}, 0.0) == []
    assert stalls.look({"a": 0}, 5.0) == []
    assert stalls.look({"a": 100}, 9.0) == []
    assert stalls.look({"a": 100}, 12.0) == []
    assert stalls.look({"a": 100}, 19.0) == ["a"]
