"""Of messages that were stored at once, all readers count the same one."""

import random

import pytest

from supervisor.cells.chain import Message, chained


def numbers(*follows: int, after: int = 0, first: int = 1) -> list[int]:
    """The messages that count, of those that follow these, by number."""
    made = [Message(number, one, b"") for number, one in enumerate(follows, start=first)]
    return [one.number for one in chained(made, after)]


def test_messages_that_follow_each_other_count() -> None:
    assert numbers(0, 1, 2, 3) == [1, 2, 3, 4]
    assert numbers() == []


def test_of_two_that_follow_one_message_the_first_one_counts() -> None:
    assert numbers(0, 0, 1, 1, 3) == [1, 3, 5]
    assert numbers(0, 1, 1, 3, 2) == [1, 2, 5]  # 4 follows the one that does not count


def test_the_first_one_counts_where_those_before_it_are_forgotten() -> None:
    assert numbers(4, 5, 4, 6, first=5) == [5, 6, 8]


def test_behind_a_message_only_its_followers_count() -> None:
    assert numbers(1, 3, 2, after=3, first=4) == [5]
    assert numbers(1, 2, after=3, first=4) == []


@pytest.mark.parametrize("seed", range(20))
def test_whoever_reads_on_from_a_message_that_counts_reads_the_same(seed: int) -> None:
    chance = random.Random(seed)
    made = [
        Message(number, chance.randrange(max(1, number - 3), number + 1) - 1, b"")
        for number in range(1, 40)
    ]
    whole = chained(made, 0)
    for at, one in enumerate(whole):
        assert chained(made[one.number :], one.number) == whole[at + 1 :]
