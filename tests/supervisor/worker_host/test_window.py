"""Pieces under way: as many as the connection carries, and no queue."""

from collections import deque

from supervisor.worker_host.window import MOST, QUEUE_S, Window


def copied(window: Window, n_pieces: int, round_trip_s: float, piece_s: float) -> float:
    """Copy over a connection that carries a piece in `piece_s`. The longest time that a piece took
    in the second half, when the window has found its size."""
    now = free_at = longest_s = 0.0
    under_way: deque[tuple[float, float]] = deque()
    n_asked = n_came = 0
    while n_came < n_pieces:
        while window.has_room and n_asked < n_pieces:
            window.asked()
            n_asked += 1
            free_at = max(free_at, now + round_trip_s) + piece_s
            under_way.append((now, free_at))
        asked_at, now = under_way.popleft()
        window.came(now - asked_at)
        n_came += 1
        if n_came > n_pieces // 2:
            longest_s = max(longest_s, now - asked_at)
    return longest_s


def test_a_slow_connection_gets_no_queue() -> None:
    window = Window()
    longest_s = copied(window, 400, 0.001, piece_s=0.1)
    assert longest_s <= 0.001 + 2 * 0.1 + QUEUE_S
    assert window.limit <= 2


def test_a_long_connection_is_filled() -> None:
    window = Window()
    copied(window, 2000, 0.05, piece_s=0.001)
    assert window.limit > 20


def test_the_window_has_an_end() -> None:
    window = Window()
    for _ in range(1000):
        window.asked()
        window.came(0.001)
    assert window.limit == MOST


def test_the_first_piece_goes_alone() -> None:
    window = Window()
    window.asked()
    assert not window.has_room
