"""Durable requests over a NATS cluster of three servers, of which one or two are killed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpufc.config import CellsConfig
from supervisor.cells import journal
from supervisor.cells.nats_store import NatsStore
from supervisor.cells.port import Away, Refused
from supervisor.cells.records import Closed
from tests.cells import (
    NatsCluster,
    Reader,
    finish,
    front,
    nats_cluster,
    needs_nats,
    show_gaps,
)
from tests.integration.fake_service import fake_text
from tests.service import Service, wait_for

pytestmark = [pytest.mark.slow, needs_nats]

GROUP = CellsConfig().cells_group
N_STREAMS, N_TOKENS = 8, 600


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    with nats_cluster(tmp_path / "nats") as started:
        yield started


def keys_of(cluster: NatsCluster, **keys: object) -> dict[str, object]:
    """A front's configuration."""
    return {"cells_nats": cluster.addresses, "cells_copies": 3, "script": "step_ms=20"} | keys


async def leader_of(cluster: NatsCluster) -> str:
    """The server that leads the group's stream, once it does and the others have its messages."""
    async with asyncio.timeout(60):
        while (found := await cluster.leader(GROUP)) is None:  # noqa: ASYNC110 - of a server
            await asyncio.sleep(0.1)
    return found


async def begun(a: Service, name: str) -> tuple[list[Reader], "asyncio.Future[list[None]]"]:
    """Streams that run in a front, and their reading. Each has some text."""
    readers = [Reader(f"{name} {i}", N_TOKENS) for i in range(N_STREAMS)]
    reading = asyncio.gather(*(reader.read(a.url) for reader in readers))
    await asyncio.to_thread(
        wait_for, lambda: all(len(one.texts) > 10 for one in readers), why="all streams have text"
    )
    return readers, reading


def all_is_stored(a: Service) -> bool:
    cells = a.status()["cells"]
    return bool(cells["connected"] and cells["state"] == "owner" and cells["replicated"] == 0)


def assert_exact(readers: list[Reader]) -> None:
    for reader in readers:
        assert reader.done
        assert reader.text == fake_text(reader.headers["Idempotency-Key"], N_TOKENS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("pause_s", [3.0, 30.0])
async def test_streams_go_on_when_the_leader_is_killed(
    cluster: NatsCluster, tmp_path: Path, pause_s: float
) -> None:
    """With the default pause, streams go on alone during the election. With a longer one they wait
    for it."""
    keys = keys_of(cluster, cells_pause_s=pause_s)
    with front(tmp_path, "a", "", 10.0, **keys) as a, front(tmp_path, "b", "", 10.0, **keys) as b:
        for number in range(3):
            leader = await leader_of(cluster)
            readers, reading = await begun(a, f"leader {number}")
            cluster.servers[leader].kill()
            await reading
            assert_exact(readers)
            show_gaps(
                f"NATS' leader is killed, pause {pause_s:g} s",
                [one.longest_gap_s for one in readers],
            )
            await asyncio.to_thread(wait_for, lambda: all_is_stored(a), why="all is stored")
            again = Reader(readers[0].headers["Idempotency-Key"], N_TOKENS)
            await finish(again, b.url)
            assert again.text == readers[0].text
            cluster.servers[leader].start()
        cells = a.status()["cells"]
        assert (cells["fenced_total"], cells["local_total"]) == (0, 0)
        assert b.status()["cells"]["taken_over_total"] == 0


@pytest.mark.timeout(300)
async def test_streams_go_on_in_another_front_when_the_leader_and_the_front_are_killed(
    cluster: NatsCluster, tmp_path: Path
) -> None:
    keys = keys_of(cluster)
    with front(tmp_path, "a", "", 3.0, **keys) as a, front(tmp_path, "b", "", 3.0, **keys) as b:
        leader = await leader_of(cluster)
        readers, reading = await begun(a, "both")
        cluster.servers[leader].kill()
        a.process.kill()
        await reading
        await asyncio.gather(*(finish(reader, b.url) for reader in readers))
        assert_exact(readers)
        show_gaps("NATS' leader and a front are killed", [one.longest_gap_s for one in readers])
        assert b.status()["cells"]["taken_over_total"] == N_STREAMS


@pytest.mark.timeout(300)
async def test_without_a_majority_streams_go_on_alone_and_are_stored_later(
    cluster: NatsCluster, tmp_path: Path
) -> None:
    keys = keys_of(cluster, cells_pause_s=0.5)
    with front(tmp_path, "a", "", 60.0, **keys) as a, front(tmp_path, "b", "", 60.0, **keys) as b:
        leader = await leader_of(cluster)
        readers, reading = await begun(a, "majority")
        follower = next(name for name in cluster.servers if name != leader)
        for name in (leader, follower):
            cluster.servers[name].kill()
        await asyncio.to_thread(
            wait_for, lambda: a.status()["cells"]["state"] == "alone", why="a goes on alone"
        )
        await reading
        assert_exact(readers)
        show_gaps("NATS has no majority", [one.longest_gap_s for one in readers])
        for name in (leader, follower):
            cluster.servers[name].start()
        await asyncio.to_thread(wait_for, lambda: all_is_stored(a), why="all is stored")
        again = Reader(readers[0].headers["Idempotency-Key"], N_TOKENS)
        await finish(again, b.url)
        assert again.text == readers[0].text


async def test_of_two_messages_at_once_one_counts(cluster: NatsCluster) -> None:
    """A cluster may store both (NATS 2.9): it compares before it stores."""
    config = CellsConfig(cells_nats=cluster.addresses, cells_copies=3)
    stores = [NatsStore(config) for _ in range(2)]
    won, n_both = [], 0

    async def attempt(store: NatsStore, data: bytes, last: int) -> int | None:
        async with asyncio.timeout(60):
            while True:
                try:
                    return await journal.append(store, "log.x", Closed(data.hex()), last)
                except Refused:
                    return None
                except Away:
                    await asyncio.sleep(0.1)

    try:
        for store in stores:
            store.start()
        async with asyncio.timeout(60):
            while not all(store.is_connected for store in stores):  # noqa: ASYNC110 - of a server
                await asyncio.sleep(0.1)
        last = 0
        for number in range(100):
            texts = [b"%d %d" % (number, index) for index in range(2)]
            got = await asyncio.gather(
                *(attempt(store, text, last) for store, text in zip(stores, texts, strict=True))
            )
            assert sum(one is not None for one in got) == 1
            won.append(texts[0 if got[0] is not None else 1].hex())
            last = next(one for one in got if one is not None)
            n_both += len(await stores[0]._messages("log.x", last)) > 0
        for store in stores:
            _, records = await journal.read_log(store, "x")
            assert [one.by for one in records if isinstance(one, Closed)] == won
        print(f"both of two were stored in {n_both} of 100 pairs")
    finally:
        for store in stores:
            await store.close()
