"""When a run of another front may be closed, and above all when not."""

import random

import pytest

from supervisor.cells.leases import Leases

LEASE = 10.0
LOOK = 2.0


def ticks(leases: Leases, start: float, seconds: float, *, could_hear: bool = True) -> list[str]:
    """Look as often as a front does. The runs that were due at the end."""
    due: list[str] = []
    now = start
    while now <= start + seconds:
        due = leases.tick(now, could_hear=could_hear)
        now += LOOK
    return due


def test_a_silent_run_is_due_after_its_lease_and_not_before() -> None:
    leases = Leases(LEASE)
    leases.heard("a", 0.0)
    assert ticks(leases, 0.0, 8.0) == []
    assert leases.n_alive == 1
    assert ticks(leases, 10.0, 0.0) == ["a"]
    assert leases.n_alive == 0


def test_a_beat_begins_the_lease_anew_until_the_run_is_closed() -> None:
    leases = Leases(LEASE)
    leases.heard("a", 0.0)
    ticks(leases, 0.0, 8.0)
    leases.heard("a", 9.0)
    assert ticks(leases, 10.0, 8.0) == []
    assert ticks(leases, 20.0, 2.0) == ["a"]
    leases.heard("a", 23.0)
    assert leases.tick(24.0, could_hear=True) == []
    leases.closed("a", 25.0)
    leases.heard("a", 26.0)
    assert leases.is_closed("a")
    assert not leases.was_heard_since("a", 24.0)


def test_a_run_whose_log_was_found_has_a_whole_lease_to_be_heard() -> None:
    leases = Leases(LEASE)
    ticks(leases, 0.0, 100.0)
    leases.saw("a", 101.0)
    assert ticks(leases, 102.0, 8.0) == []
    assert ticks(leases, 112.0, 0.0) == ["a"]


def test_a_front_that_was_cut_off_takes_no_other_for_dead() -> None:
    leases = Leases(LEASE)
    leases.heard("a", 0.0)
    leases.tick(0.0, could_hear=True)
    assert ticks(leases, 2.0, 100.0, could_hear=False) == []
    assert ticks(leases, 104.0, 8.0) == []
    assert ticks(leases, 114.0, 0.0) == ["a"]


def test_a_front_that_was_stopped_takes_no_other_for_dead() -> None:
    leases = Leases(LEASE)
    leases.heard("a", 0.0)
    leases.tick(0.0, could_hear=True)
    assert leases.tick(1000.0, could_hear=True) == []
    leases.heard("a", 1000.0)
    assert leases.tick(1002.0, could_hear=True) == []


def test_a_run_that_has_left_is_due_at_once() -> None:
    leases = Leases(LEASE)
    leases.heard("a", 0.0)
    leases.left("a")
    assert leases.tick(0.0, could_hear=True) == ["a"]


def test_closed_runs_are_forgotten_once() -> None:
    leases = Leases(LEASE)
    leases.closed("a", 5.0)
    assert leases.forgotten(5.0) == []
    assert leases.forgotten(6.0) == ["a"]
    assert leases.forgotten(7.0) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_run_is_due_whose_last_beat_was_heard_less_than_a_lease_ago(seed: int) -> None:
    chance = random.Random(seed)
    leases, now, heard_at = Leases(LEASE), 0.0, {name: -1.0 for name in "abc"}
    for _ in range(500):
        now += chance.choice([0.5, 2.0, 2.0, 30.0])
        for name in heard_at:
            if chance.random() < 0.3:
                leases.heard(name, now)
                heard_at[name] = now
        for name in leases.tick(now, could_hear=chance.random() < 0.7):
            assert now - heard_at[name] >= LEASE
