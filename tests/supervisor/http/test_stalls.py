"""Which connections are given up because their clients take nothing: pure."""

from supervisor.http.edge.stalls import SPARED_BYTES, Stalls


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


def test_under_pressure_the_largest_go_first_until_the_rest_is_within_the_limit() -> None:
    stalls = Stalls[str](10.0)
    backlogs = {"a": 3 * SPARED_BYTES, "b": 5 * SPARED_BYTES, "c": 4 * SPARED_BYTES}
    assert stalls.look(backlogs, 0.0) == []
    assert stalls.to_relieve(1, 2.0, 1.0) == []  # each has its time
    assert stalls.look(backlogs, 2.0) == []
    assert stalls.to_relieve(0, 2.0, 2.0) == []
    assert stalls.to_relieve(1, 2.0, 2.0) == ["b"]
    assert stalls.to_relieve(6 * SPARED_BYTES, 2.0, 2.0) == ["b", "c"]


def test_under_pressure_a_reader_with_little_left_is_spared_until_its_time() -> None:
    stalls = Stalls[str](10.0)
    backlogs = {"little": SPARED_BYTES, "more": SPARED_BYTES + 1}
    assert stalls.look(backlogs, 0.0) == []
    assert stalls.to_relieve(99 * SPARED_BYTES, 2.0, 9.0) == ["more"]
    assert stalls.look(backlogs, 10.0) == ["little", "more"]
    assert stalls.to_relieve(99 * SPARED_BYTES, 2.0, 10.0) == []  # they are given up anyway
