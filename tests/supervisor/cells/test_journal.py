"""Records in a store that loses answers, under two writers."""

import random

import pytest

from supervisor.cells import journal
from supervisor.cells.port import Away, Behind, Refused
from supervisor.cells.records import Batch, Claimed, Closed, Gain, OfLog
from tests.supervisor.cells.memory import Connection, Server


def batch(number: int, size: int = 0) -> Batch:
    return Batch(number, (Gain("x" * size, 0),))


async def records(store: Connection) -> list[OfLog]:
    _, found = await journal.read_log(store, "a")
    return list(found)


async def test_a_record_whose_answer_was_lost_is_stored_once() -> None:
    server = Server()
    store = Connection(server, most_bytes=50)
    for size in (0, 300):
        store.lose_answers = 3
        last = server.of("log.a")[-1][0] if server.of("log.a") else 0
        n_attempts = 0
        while True:
            n_attempts += 1
            try:
                last = await journal.append(store, "log.a", batch(1, size), last)
                break
            except Away:
                continue
        assert n_attempts > 1
        assert last == server.of("log.a")[-1][0]
    found = await records(store)
    assert found == [batch(1, 0), batch(1, 300)]


async def test_of_two_fronts_at_one_subject_one_is_refused() -> None:
    server = Server()
    a, b = Connection(server), Connection(server)
    last = await journal.append(a, "log.a", batch(1), 0)
    await journal.append(b, "log.a", Closed("b"), last)
    with pytest.raises(Refused):
        await journal.append(a, "log.a", batch(2), last)
    found = await records(a)
    assert found == [batch(1), Closed("b")]


async def test_a_lost_answer_does_not_hide_another_front_s_record() -> None:
    server = Server()
    a, b = Connection(server, most_bytes=50), Connection(server)
    a.lose_answers = 1
    with pytest.raises(Away):
        await journal.append(a, "log.a", batch(1, 300), 0)
    await journal.append(b, "log.a", Closed("b"), server.last)
    with pytest.raises(Refused):
        await journal.append(a, "log.a", batch(1, 300), 0)
    assert await records(b) == [Closed("b")]


async def test_a_leader_that_lags_refuses_for_no_other_front() -> None:
    server = Server()
    store = Connection(server)
    last = await journal.append(store, "log.a", batch(1), 0)
    server.known = 0
    with pytest.raises(Behind):
        await journal.append(store, "log.a", batch(2), last)
    server.known = None
    await journal.append(store, "log.a", batch(2), last)
    assert await records(store) == [batch(1), batch(2)]


@pytest.mark.parametrize("seed", range(20))
async def test_of_any_number_of_claims_one_wins(seed: int) -> None:
    chance, server = random.Random(seed), Server()
    stores = [Connection(server) for _ in range(4)]
    won = []
    for run in chance.sample(range(4), 4):
        try:
            await journal.append(stores[run], "request.x", Claimed(str(run)), 0)
            won.append(run)
        except Refused:
            continue
    assert len(won) == 1
