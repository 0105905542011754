"""Copies take turns, and a host that gets no further loses its own."""

import asyncio

import pytest

from supervisor.cluster.messages import (
    PIECE_BYTES,
    Piece,
)
from supervisor.remote import supply
from tests.supervisor.worker_host.supplied import (
    BYTES,
    OTHER,
    Bench,
    done,
    model,
    until,
)


async def test_two_workers_of_one_machine_share_a_copy(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    first, second = bench.begin(host, config), bench.begin(host, config)
    for _, outcome in (first, second):
        assert (await outcome.over()).is_ready
    assert len(host.pieces()) == -(-len(BYTES) // PIECE_BYTES)


async def test_two_hosts_of_one_machine_share_a_models_folder(bench: Bench) -> None:
    """Such as in tests: one waits for the other one's copy."""
    config, one, two = model(bench), bench.host(), bench.host()
    two.machine = "b"
    for _, outcome in (bench.begin(one, config), bench.begin(two, config)):
        assert (await outcome.over()).is_ready
    assert len(one.pieces()) + len(two.pieces()) == -(-len(BYTES) // PIECE_BYTES)


async def test_only_so_many_machines_copy_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = model(bench)
    hosts = [bench.host(name) for name in "abc"]
    for host in hosts:
        host.passes = lambda message: not isinstance(message, Piece)
    begun = [bench.begin(host, config) for host in hosts]
    await until(lambda: sum(bool(host.pieces()) for host in hosts) == supply.MOST_COPYING)
    (waiting,) = [n for n, host in enumerate(hosts) if not host.pieces()]
    await until(lambda: begun[waiting][1].progress)
    assert begun[waiting][1].progress == ["waits until others have their copies"]
    first = next(n for n, host in enumerate(hosts) if host.pieces())
    bench.supply.end(begun[first][0])  # such as a lost host
    await until(hosts[waiting].pieces)


async def test_a_host_that_gets_no_further_loses_its_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "STALLED_S", 0.05)
    host = bench.host()
    host.passes = lambda message: not isinstance(message, Piece)
    assert await bench.failed(host, model(bench)) == "stalled: no progress for 0.05 s"


async def test_a_host_that_only_says_the_same_again_loses_its_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "STALLED_S", 0.2)
    host = bench.host()
    host.passes = lambda message: not isinstance(message, Piece)
    _, outcome = bench.begin(host, model(bench))
    await until(lambda: host.pieces() or outcome.failure)
    while outcome.failure is None:
        host.provision.look()
        await asyncio.sleep(0.01)
    assert outcome.failure == "stalled: no progress for 0.2 s"


async def test_a_second_model_waits_for_the_first_at_the_front(bench: Bench) -> None:
    """A job that has a turn and waits for another copy of its host would look stalled."""
    host = bench.host()
    host.passes = lambda message: not isinstance(message, Piece)
    bench.begin(host, model(bench))
    await until(host.pieces)
    _, second = bench.begin(host, model(bench, "n.gguf", OTHER))
    await until(lambda: second.progress)
    assert second.progress == ["waits until others have their copies"]


async def test_progress_is_told(bench: Bench) -> None:
    host = bench.host()
    host.passes = lambda message: (
        not (isinstance(message, Piece) and message.offset >= 2 * PIECE_BYTES)
    )
    epoch, outcome = bench.begin(host, model(bench))
    await until(lambda: done(host, epoch) == {1: 2 * PIECE_BYTES})
    host.provision.look()
    await until(lambda: outcome.progress)
    assert outcome.progress[-1] == "copying m.gguf, 39 %"
