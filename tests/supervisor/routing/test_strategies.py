"""The strategies, and the account of loads that they choose by."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufc.config import Routing
from gpufc.ids import Epoch
from supervisor.routing.loads import Loads
from supervisor.routing.port import Arrival
from supervisor.routing.prefix import BLOCK_TOKENS, prefix_of
from supervisor.routing.prefix_affinity import PrefixAffinity
from supervisor.routing.router import Router
from supervisor.routing.strategies import strategy

NAMES = sorted(Routing)


def router_of(name: Routing, n_workers: int = 3, capacity: int = 4) -> Router:
    router = Router(strategy(name))
    for no in range(1, n_workers + 1):
        router.add(Epoch(no), capacity)
    return router


def prompt(conversation: int, n_blocks: int) -> Arrival:
    start = conversation * 100_000
    return Arrival(tuple(range(start, start + n_blocks * BLOCK_TOKENS)), 0, "scope")


def start(router: Router, arrival: Arrival) -> Epoch | None:
    chosen = router.choose(arrival)
    if chosen is not None:
        router.took(chosen, arrival)
    return chosen


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_fills_all_workers_and_then_says_that_they_are_full(name: Routing) -> None:
    router = router_of(name)
    chosen = Counter(start(router, prompt(1, 2)) for _ in range(12))
    assert chosen == {Epoch(1): 4, Epoch(2): 4, Epoch(3): 4}
    assert router.choose(prompt(1, 2)) is None
    router.gave_back(Epoch(2))
    assert router.choose(prompt(7, 2)) == 2


@pytest.mark.parametrize("name", NAMES)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["start", "end", "add", "remove", "prefilled"]),
            st.integers(0, 9),
        ),
        max_size=60,
    )
)
def test_a_choice_is_a_worker_with_room_whenever_there_is_one(
    name: Routing, steps: list[tuple[str, int]]
) -> None:
    router = Router(strategy(name))
    capacity: dict[Epoch, int] = {}
    running: list[tuple[Epoch, int]] = []
    for what, number in steps:
        worker = Epoch(number)
        if what == "add" and worker not in capacity:
            capacity[worker] = 1 + number % 3
            router.add(worker, capacity[worker])
        elif what == "remove" and capacity.pop(worker, 0):
            router.remove(worker)
            running = [one for one in running if one[0] != worker]
        elif what == "end" and running:
            ended, n_tokens = running.pop(number % len(running))
            router.gave_back(ended, n_tokens)
        elif what == "prefilled" and running:
            index = number % len(running)
            one, n_tokens = running[index]
            router.prefilled(one, n_tokens)
            running[index] = (one, 0)
        elif what == "start":
            counts = Counter(one for one, _ in running)
            with_room = {one for one, most in capacity.items() if counts[one] < most}
            arrival = prompt(number % 3, 1 + number % 2)
            chosen = start(router, arrival)
            assert (chosen in with_room) if with_room else chosen is None
            if chosen is not None:
                running.append((chosen, arrival.n_tokens))
    for one in capacity:
        assert router.loads[one].n_sequences == sum(worker == one for worker, _ in running)
        assert router.loads[one].n_prefill == sum(n for worker, n in running if worker == one)


@pytest.mark.parametrize("name", [Routing.LEAST_OUTSTANDING, Routing.PREFIX_AFFINITY])
def test_of_workers_with_as_much_to_do_a_near_one_is_chosen(name: Routing) -> None:
    router = Router(strategy(name))
    router.add(Epoch(1), 4, is_far=True)
    router.add(Epoch(2), 4)
    router.add(Epoch(3), 4, is_far=True)
    assert start(router, Arrival()) == Epoch(2)
    assert start(router, Arrival()) == Epoch(1)  # less to do comes first
    router.gave_back(Epoch(1))
    router.gave_back(Epoch(2))
    assert start(router, Arrival()) == Epoch(2)


@given(steps=st.lists(st.tuples(st.integers(1, 5), st.sampled_from((-1, 1)), st.integers(0, 300))))
def test_the_heap_finds_what_a_scan_finds(steps: list[tuple[int, int, int]]) -> None:
    loads = Loads()
    for no in range(1, 6):
        loads.add(Epoch(no), 3)
    for number, change, n_tokens in steps:
        worker = Epoch(number)
        if change > 0 and loads[worker].has_room:
            loads.took(worker, n_tokens)
        elif change < 0 and loads[worker].n_sequences:
            loads.gave_back(worker, loads[worker].n_prefill // loads[worker].n_sequences)
        scanned = [Epoch(no) for no in range(1, 6) if loads[Epoch(no)].has_room]
        found = loads.least()
        if not scanned:
            assert found is None
            continue
        assert found is not None
        least = min((loads[one].n_sequences, loads[one].n_prefill) for one in scanned)
        assert (loads[found].n_sequences, loads[found].n_prefill) == least


def test_least_outstanding_takes_fewer_tokens_among_equals() -> None:
    router = router_of(Routing.LEAST_OUTSTANDING, n_workers=2)
    router.took(Epoch(1), prompt(1, 1))
    router.took(Epoch(2), prompt(2, 9))
    assert router.choose(prompt(3, 1)) == 1
    router.prefilled(Epoch(2), 9 * BLOCK_TOKENS)
    assert router.choose(prompt(3, 1)) == 2


def test_round_robin_takes_turns_whatever_the_load() -> None:
    router = router_of(Routing.ROUND_ROBIN)
    chosen = []
    for _ in range(6):
        chosen.append(start(router, prompt(1, 1)))
        router.gave_back(Epoch(1)) if chosen[-1] == 1 else None
    assert chosen == [1, 2, 3, 1, 2, 3]


def test_a_conversation_returns_to_its_worker() -> None:
    router = router_of(Routing.PREFIX_AFFINITY)
    homes = [start(router, prompt(conversation, 3)) for conversation in range(3)]
    assert sorted(filter(None, homes)) == [1, 2, 3]
    for conversation in (2, 0, 1):
        assert router.choose(prompt(conversation, 5)) == homes[conversation]


def test_the_longest_prefix_wins() -> None:
    router = router_of(Routing.PREFIX_AFFINITY, capacity=8)
    router.took(Epoch(1), prompt(1, 2))
    router.took(Epoch(2), prompt(1, 6))
    assert router.choose(prompt(1, 8)) == 2
    assert router.choose(prompt(1, 2)) in {1, 2}


def test_the_load_guard_sends_the_next_one_elsewhere_and_it_is_remembered() -> None:
    router = router_of(Routing.PREFIX_AFFINITY, n_workers=2, capacity=8)
    chosen = [start(router, prompt(1, 4)) for _ in range(6)]
    assert chosen[:2] == [1, 1]
    assert 2 in chosen
    counts = Counter(chosen)
    assert abs(counts[Epoch(1)] - counts[Epoch(2)]) <= 2


def test_a_dead_worker_is_passed_over() -> None:
    router = router_of(Routing.PREFIX_AFFINITY, n_workers=2)
    router.took(Epoch(1), prompt(1, 4))
    router.remove(Epoch(1))
    assert router.choose(prompt(1, 4)) == 2
    router.gave_back(Epoch(1))


def test_a_prompt_without_a_cache_goes_to_the_least_busy() -> None:
    router = router_of(Routing.PREFIX_AFFINITY, n_workers=2)
    tokens = tuple(range(4 * BLOCK_TOKENS))
    router.took(Epoch(1), Arrival(tokens, 0, "scope"))
    assert router.choose(Arrival(tokens, 0, "scope")) == 1
    assert router.choose(Arrival(tokens, 0, None)) == 2
    assert router.choose(Arrival(tokens, 0, "another")) == 2


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    affinity = PrefixAffinity(max_prefixes=4)
    router = Router(affinity)
    for no in (1, 2):
        router.add(Epoch(no), 9)
    router.took(Epoch(2), prompt(1, 2))
    router.took(Epoch(1), prompt(2, 2))
    router.took(Epoch(1), prompt(3, 2))
    router.gave_back(Epoch(1))
    assert len(affinity._holders) == 4
    assert router.choose(prompt(3, 2)) == 1
    assert router.choose(prompt(1, 2)) in {1, 2}


@given(
    tokens=st.lists(st.integers(0, 9), max_size=300).map(tuple),
    more=st.lists(st.integers(0, 9), max_size=200).map(tuple),
)
def test_a_longer_prompt_begins_with_the_hashes_of_its_prefix(
    tokens: tuple[int, ...], more: tuple[int, ...]
) -> None:
    whole = prefix_of(tokens + more, "a")
    assert whole[: len(tokens) // BLOCK_TOKENS] == prefix_of(tokens, "a")
    assert len(whole) == len(tokens + more) // BLOCK_TOKENS


@pytest.mark.parametrize("name", [Routing.LEAST_OUTSTANDING, Routing.PREFIX_AFFINITY])
def test_replays_go_where_the_fewest_tokens_wait(name: Routing) -> None:
    router = router_of(name, n_workers=2, capacity=100)
    for _ in range(20):  # the first worker has been at work for long, the second is a fresh spare
        router.took(Epoch(1), Arrival(tuple(range(10))))
        router.prefilled(Epoch(1), 10)
    replays = [Arrival(tuple(range(n_tokens)), n_generated=1) for n_tokens in range(100, 140)]
    chosen = Counter(start(router, replay) for replay in replays)
    assert chosen == {Epoch(1): 20, Epoch(2): 20}
    assert [start(router, Arrival(tuple(range(10)))) for _ in range(3)] == [Epoch(2)] * 3
