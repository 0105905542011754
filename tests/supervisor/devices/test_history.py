"""The last hour: means per interval, gaps, and a size that does not grow."""

from supervisor.devices.history import History


def points(history: History, name: str, since: float = 0.0) -> tuple[float | None, ...]:
    return next(track.points for track in history.recent(since).tracks if track.name == name)


def test_nothing_recorded_is_nothing_told() -> None:
    assert History().recent().tracks == ()


def test_a_point_is_the_mean_of_its_interval() -> None:
    history = History(interval_s=5, n_points=10)
    for at, value in ((100, 1.0), (101, 2.0), (104.9, 6.0), (105, 7.0)):
        history.record(at, {"a": value})
    recent = history.recent()
    assert (recent.begins_at, recent.interval_s) == (100, 5)
    assert points(history, "a") == (3.0, 7.0)


def test_a_missing_figure_and_a_missing_time_are_gaps() -> None:
    history = History(interval_s=1, n_points=10)
    history.record(1, {"a": 1.0})
    history.record(2, {"a": None, "b": 5.0})
    history.record(4, {"a": float("nan"), "b": 6.0})
    assert points(history, "a") == (1.0, None, None, None)
    assert points(history, "b") == (None, 5.0, None, 6.0)


def test_the_oldest_points_are_overwritten_and_none_comes_back_after_a_long_pause() -> None:
    history = History(interval_s=1, n_points=3)
    for at in range(10):
        history.record(at, {"a": float(at)})
    assert points(history, "a") == (7.0, 8.0, 9.0)
    history.record(1000, {"a": 1.0})
    assert points(history, "a") == (None, None, 1.0)


def test_a_clock_that_goes_back_does_not_disturb_it() -> None:
    history = History(interval_s=1, n_points=5)
    history.record(10, {"a": 2.0})
    history.record(3, {"a": 4.0})
    assert points(history, "a") == (3.0,)


def test_a_reader_asks_for_what_is_new() -> None:
    history = History(interval_s=5, n_points=100)
    for at in range(0, 50, 5):
        history.record(at, {"a": float(at)})
    assert points(history, "a", since=41) == (40.0, 45.0)
    assert history.recent(41).begins_at == 40


def test_more_names_than_there_is_room_for_are_not_kept() -> None:
    history = History(most_tracks=2)
    for name in ("a", "b", "c"):
        history.record(1, {name: 1.0})
    assert [track.name for track in history.recent().tracks] == ["a", "b"]
