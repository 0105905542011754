"""Which hosts the book keeps."""

import pytest
from msgspec import Struct

from supervisor.cluster.away import AWAY_S, GIVES_PLACE_S, kept

NOW = 10 * AWAY_S


class Host(Struct, frozen=True):
    machine: str
    seen_at: float


def names(
    *away_s: float, attached: frozenset[str] = frozenset(), since: float = 0.0, most: int = 99
) -> str:
    """The kept ones of the hosts a, b, c, …, each away for so long."""
    hosts = [Host(chr(97 + n), NOW - time_s) for n, time_s in enumerate(away_s)]
    return "".join(host.machine for host in kept(hosts, attached, NOW, since, most))


def test_a_host_that_is_away_for_long_leaves() -> None:
    assert names(AWAY_S + 1, AWAY_S - 1, 0) == "bc"


def test_an_attached_host_stays_whatever_the_book_says() -> None:
    assert names(AWAY_S + 1, attached=frozenset("a"), most=0) == "a"


def test_time_in_which_no_front_listened_does_not_count() -> None:
    assert names(AWAY_S + 1, since=NOW - 60) == "a"


@pytest.mark.parametrize(("most", "left"), [(4, "abcd"), (3, "acd"), (2, "cd"), (1, "cd")])
def test_in_a_full_book_the_longest_away_gives_its_place_but_not_at_once(
    most: int, left: str
) -> None:
    """b is away the longest; c and d are too fresh to go."""
    assert names(GIVES_PLACE_S + 5, GIVES_PLACE_S + 9, 60, 0, most=most) == left


def test_the_ones_that_leave_by_time_count_first() -> None:
    assert names(AWAY_S + 1, GIVES_PLACE_S + 5, 0, most=2) == "bc"
