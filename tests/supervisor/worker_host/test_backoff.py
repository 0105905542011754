"""Pauses between two attempts."""

import random

from supervisor.worker_host.about import machine_name
from supervisor.worker_host.backoff import FIRST_S, HOLDING_S, MOST_S, Backoff


def test_pauses_grow_to_a_limit_and_differ() -> None:
    backoff, other = Backoff(random.Random(1)), Backoff(random.Random(2))
    pauses = [backoff.next_s() for _ in range(20)]
    assert pauses[0] <= FIRST_S
    assert all(MOST_S / 2 <= pause <= MOST_S for pause in pauses[10:])
    assert pauses != [other.next_s() for _ in range(20)]
    backoff.reset()
    assert backoff.next_s() <= FIRST_S


def test_a_host_that_holds_workers_dials_often() -> None:
    backoff = Backoff(random.Random(1))
    assert all(backoff.next_s(is_holding=True) <= HOLDING_S for _ in range(20))
    assert all(backoff.next_s() <= MOST_S for _ in range(20))


def test_a_host_name_becomes_a_machine_name() -> None:
    assert machine_name("node-1.example") == "node-1.example"
    assert machine_name("\x1b[2Jmy host\n") == "2Jmy-host"
    assert machine_name("…") == "host"
    assert machine_name("n" * 100) == "n" * 63
