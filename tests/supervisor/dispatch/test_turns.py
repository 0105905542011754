"""The order of turns: slots are shared evenly between owners, and no owner starves."""

from collections import Counter

import pytest

from gpufc.ids import RequestNo
from supervisor.dispatch.turns import Turns


class Queue:
    """Turns with a number of slots. Running sequences end when told to, the oldest first."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.owners: dict[RequestNo, str] = {}
        self.running: list[RequestNo] = []

    def ask(self, owner: str, n: int = 1) -> None:
        for _ in range(n):
            number = RequestNo(len(self.owners) + 1)
            self.owners[number] = owner
            self.turns.enter(number, owner)
            self.turns.wait(number)

    def begin(self, n: int = 1) -> list[str]:
        """The owners of the next ones."""
        begun = []
        for _ in range(n):
            number = self.turns.first()
            assert number is not None
            self.turns.begin(number)
            self.running.append(number)
            begun.append(self.owners[number])
        return begun

    def end(self) -> None:
        self.turns.leave(self.running.pop(0))

    def one_after_another(self, n: int) -> str:
        """With one slot: the owners of the next turns, a letter each."""
        begun = ""
        for _ in range(n):
            if self.running:
                self.end()
            begun += self.begin()[0]
        return begun


def test_one_owner_is_served_in_the_order_of_arrival() -> None:
    turns = Turns()
    for number in (1, 2, 3):
        turns.enter(RequestNo(number), "a")
    for number in (3, 1, 2):  # as their prompts become known
        turns.wait(RequestNo(number))
    for number in (1, 2, 3):
        assert turns.first() == number
        turns.begin(RequestNo(number))
    assert turns.first() is None


@pytest.mark.parametrize(
    ("later", "order"),
    [
        ({3: -1}, [1, 3, 2, 4]),
        ({3: -2}, [3, 1, 2, 4]),
        ({3: -99}, [3, 1, 2, 4]),
        ({1: 2}, [2, 3, 1, 4]),
        ({1: 99, 2: 98}, [3, 4, 2, 1]),
    ],
)
def test_a_policy_shifts_a_sequence_by_as_many_places_as_it_says(
    later: dict[int, int], order: list[int]
) -> None:
    turns = Turns()
    for number in map(RequestNo, (1, 2, 3, 4)):
        turns.enter(number, "a")
        turns.shift(number, later.get(number, 0))
        turns.wait(number)
    begun = []
    while (first := turns.first()) is not None:
        turns.begin(first)
        begun.append(first)
    assert begun == order


def test_owners_share_slots_however_much_their_sequences_are_put_forward() -> None:
    turns = Turns()
    for number in map(RequestNo, range(1, 7)):
        turns.enter(number, "greedy" if number % 2 else "modest")
        turns.shift(number, -1000 if number % 2 else 0)
        turns.wait(number)
    owners = []
    while (first := turns.first()) is not None:
        owners.append(turns.owner_of(first))
        turns.begin(first)
    assert Counter(owners[:4]) == {"greedy": 2, "modest": 2}


def test_a_single_request_goes_before_fifty_of_another_owner() -> None:
    queue = Queue()
    queue.ask("a", 50)
    queue.begin(2)
    queue.ask("b")
    queue.end()
    assert queue.begin() == ["b"]


def test_with_one_slot_owners_take_turns() -> None:
    queue = Queue()
    queue.ask("a", 50)
    queue.begin()
    queue.ask("b", 3)
    queue.ask("c", 1)
    assert queue.one_after_another(8) == "bcabab" + "aa"


def test_slots_are_shared_evenly_however_much_each_asks_for() -> None:
    queue = Queue()
    queue.ask("a", 100)
    queue.ask("b", 20)
    queue.ask("c", 10)
    assert Counter(queue.begin(9)) == {"a": 3, "b": 3, "c": 3}


def test_an_owner_of_long_sequences_gets_no_more_slots_than_one_of_short_ones() -> None:
    queue = Queue()
    queue.ask("long", 50)
    queue.begin(4)
    queue.ask("short", 50)
    for _ in range(4):  # of each owner's, one ends: the short one's, as soon as it has any
        queue.end()
        queue.begin()
    assert Counter(queue.owners[number] for number in queue.running) == {"long": 2, "short": 2}


def test_an_owner_with_much_to_do_is_not_starved_by_many_that_come_again_and_again() -> None:
    queue = Queue()
    queue.ask("a", 3)
    for name in "bcdef":
        queue.ask(name)
    begun = ""
    for _ in range(18):
        if queue.running:
            name = queue.owners[queue.running[0]]
            queue.end()
            if name != "a":
                queue.ask(name)
        begun += queue.begin()[0]
    assert begun == "abcdef" * 3


def test_what_left_or_was_taken_out_has_no_turn() -> None:
    turns = Turns()
    for number, owner in ((1, "a"), (2, "a"), (3, "b")):
        turns.enter(RequestNo(number), owner)
        turns.wait(RequestNo(number))
    turns.leave(RequestNo(1))
    assert turns.first() == 2
    turns.pause(RequestNo(2))
    assert turns.first() == 3
    assert turns.n_waiting == 1


def test_an_owner_is_forgotten_with_the_last_of_its_sequences() -> None:
    turns = Turns()
    turns.enter(RequestNo(1), "a")
    assert turns.n_owners("a") == turns.n_present("a") == 1
    turns.leave(RequestNo(1))
    assert turns.n_owners("b") == 1
    assert turns.n_present("a") == 0


@pytest.mark.parametrize("n_owners", [1, 100, 10_000])
def test_ten_thousand_wait_and_all_have_their_turn(n_owners: int) -> None:
    queue = Queue()
    for number in range(10_000):
        queue.ask(f"{number % n_owners}")
    shares = Counter(queue.begin(10_000 // 2))
    assert max(shares.values()) - min(shares.values()) <= 1
    assert queue.turns.n_waiting == 5_000
    while queue.running:
        queue.end()
    assert queue.turns.n_waiting == 5_000
