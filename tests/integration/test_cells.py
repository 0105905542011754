"""Durable requests of several fronts: one is killed, cut off or stopped, and the text is whole."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from gpufc.config import CellsConfig
from supervisor.cells.nats_store import NatsStore
from tests.cells import Nats, Reader, finish, front, nats_server, needs_nats, show_gaps
from tests.integration.fake_service import fake_text
from tests.proxy import proxies
from tests.service import Service, wait_for

pytestmark = [pytest.mark.slow, needs_nats]

N_TOKENS = 300


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    with nats_server(tmp_path / "nats") as started:
        yield started


class Group:
    """Fronts of one group, of which one is killed and replaced again and again."""

    def __init__(self, folder: Path, nats: str) -> None:
        self._folder = folder
        self._nats = nats
        self._n_started = 0
        self._stack = contextlib.ExitStack()
        self.fronts: list[Service] = []

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, **keys: object) -> Service:
        self._n_started += 1
        made = front(self._folder, f"front{self._n_started}", self._nats, **keys)
        started = self._stack.enter_context(made)
        self.fronts.append(started)
        return started

    def kill(self, one: Service) -> None:
        one.process.kill()
        one.process.wait(60)
        self.fronts.remove(one)


N_KILLS = 24


async def goes_on_in_another_run(front: Service, run: str) -> None:
    """It has been fenced once, and stores requests again."""
    await asyncio.to_thread(
        wait_for, lambda: front.status()["cells"]["fenced_total"] == 1, why="its run has ended"
    )
    assert front.status()["cells"]["run"] != run
    later = Reader("later", 20)
    await finish(later, front.url)
    assert later.answer_headers["x-gpufc-durable"] == "replicated"


@pytest.mark.timeout(1200)
async def test_fronts_killed_at_random_places_lose_and_repeat_nothing(
    nats: Nats, tmp_path: Path
) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)
    gaps: list[float] = []
    with Group(tmp_path, nats.address) as group:
        group.start()
        group.start()
        for number in range(N_KILLS):
            one, other = chance.sample(group.fronts, 2)
            url = other.url
            readers = [Reader(f"{number} {i}", N_TOKENS) for i in range(3)]
            await asyncio.gather(
                *(reader.read(one.url, chance.randrange(1, N_TOKENS // 8)) for reader in readers)
            )
            group.kill(one)
            await asyncio.gather(*(finish(reader, url) for reader in readers))
            for i, reader in enumerate(readers):
                assert reader.text == fake_text(f"{number} {i}", N_TOKENS)
                gaps.append(reader.longest_gap_s)
            if number + 1 < N_KILLS:
                await asyncio.to_thread(group.start)
    show_gaps("a front is killed", gaps)


async def test_a_front_behind_a_partition_is_fenced_and_no_text_comes_twice(
    nats: Nats, tmp_path: Path
) -> None:
    with (
        proxies(nats.address, "a") as between,
        front(tmp_path, "a", between["a"].address, script="step_ms=20", cells_pause_s=0.5) as a,
        front(tmp_path, "b", nats.address) as b,
    ):
        run = a.status()["cells"]["run"]
        reader = Reader("cut off", N_TOKENS)
        await reader.read(a.url, 10)
        there = asyncio.create_task(reader.read(a.url))
        await asyncio.to_thread(between["a"].stall)
        await asyncio.to_thread(
            wait_for, lambda: b.status()["cells"]["taken_over_total"] == 1, why="b goes on with it"
        )
        other = Reader("cut off", N_TOKENS)
        await finish(other, b.url)
        await asyncio.to_thread(between["a"].go_on)
        await there
        assert reader.done
        assert reader.text == other.text == fake_text("cut off", N_TOKENS)
        show_gaps("a front is cut off", [reader.longest_gap_s])
        await goes_on_in_another_run(a, run)


async def test_streams_go_on_without_nats_and_are_stored_when_it_is_back(
    nats: Nats, tmp_path: Path
) -> None:
    keys = {"cells_pause_s": 0.3, "lease_s": 60.0, "script": "step_ms=20"}
    with (
        front(tmp_path, "a", nats.address, **keys) as a,
        front(tmp_path, "b", nats.address, **keys) as b,
    ):
        reader = Reader("without", N_TOKENS)
        await reader.read(a.url, 5)
        nats.kill()
        await reader.read(a.url, 40)
        assert a.status()["cells"]["state"] == "alone"
        local = Reader("new", 20)
        await finish(local, a.url)
        assert local.answer_headers["x-gpufc-durable"] == "local"
        nats.start()
        await finish(reader, a.url)
        assert reader.text == fake_text("without", N_TOKENS)
        show_gaps("NATS is away for longer than the pause", [reader.longest_gap_s])
        for one in (a, b):
            await asyncio.to_thread(
                wait_for, lambda one=one: one.status()["cells"]["connected"], why="NATS is back"
            )
        await asyncio.to_thread(
            wait_for, lambda: a.status()["cells"]["replicated"] == 0, why="all is stored"
        )
        again = Reader("without", N_TOKENS)
        await finish(again, b.url)
        assert again.text == reader.text


async def test_a_restart_of_nats_within_the_pause_delays_streams_only(
    nats: Nats, tmp_path: Path
) -> None:
    keys = {"cells_pause_s": 600.0, "lease_s": 600.0, "script": "step_ms=20"}
    with front(tmp_path, "a", nats.address, **keys) as a:
        reader = Reader("restart", N_TOKENS)
        reading = asyncio.create_task(reader.read(a.url))
        await asyncio.to_thread(wait_for, lambda: len(reader.texts) > 5, why="it has begun")
        nats.kill()
        await asyncio.to_thread(
            wait_for, lambda: a.status()["cells"]["state"] == "waiting", why="it waits"
        )
        nats.start()
        await reading
        assert reader.done
        assert reader.text == fake_text("restart", N_TOKENS)
        cells = a.status()["cells"]
        assert (cells["state"], cells["fenced_total"]) == ("owner", 0)
        assert len(reader.tags) == 1  # it has not been alone
        show_gaps("NATS is away for less than the pause", [reader.longest_gap_s])


async def test_records_that_nats_has_lost_cost_no_stream(nats: Nats, tmp_path: Path) -> None:
    keys = {"lease_s": 600.0, "script": "step_ms=20"}
    with front(tmp_path, "a", nats.address, **keys) as a:
        run = a.status()["cells"]["run"]
        reader = Reader("lost", N_TOKENS)
        reading = asyncio.create_task(reader.read(a.url))
        await asyncio.to_thread(wait_for, lambda: len(reader.texts) > 5, why="it has begun")
        nats.kill()
        nats.forget()
        nats.start()
        await reading
        assert reader.done
        assert reader.text == fake_text("lost", N_TOKENS)
        show_gaps("NATS has lost its records", [reader.longest_gap_s])
        await goes_on_in_another_run(a, run)


async def test_a_front_that_stands_still_beyond_the_lease_is_fenced(
    nats: Nats, tmp_path: Path
) -> None:
    keys = {"script": "step_ms=20"}
    with (
        front(tmp_path, "a", nats.address, **keys) as a,
        front(tmp_path, "b", nats.address, **keys) as b,
    ):
        pid = a.status()["front"]["pid"]
        reader = Reader("still", N_TOKENS)
        there = asyncio.create_task(reader.read(a.url))
        await asyncio.to_thread(wait_for, lambda: len(reader.texts) > 5, why="it has begun")
        os.kill(pid, signal.SIGSTOP)
        await asyncio.to_thread(
            wait_for, lambda: b.status()["cells"]["taken_over_total"] == 1, why="b goes on with it"
        )
        os.kill(pid, signal.SIGCONT)
        other = Reader("still", N_TOKENS)
        await finish(other, b.url)
        await there
        assert reader.text == other.text == fake_text("still", N_TOKENS)
        show_gaps("a front stands still", [reader.longest_gap_s])
        await asyncio.to_thread(
            wait_for, lambda: a.status()["cells"]["fenced_total"] == 1, why="a is fenced"
        )


async def test_a_front_that_is_stopped_hands_its_requests_over(nats: Nats, tmp_path: Path) -> None:
    keys = {"lease_s": 60.0, "script": "step_ms=20", "shutdown_timeout_s": 0.5}
    with (
        front(tmp_path, "a", nats.address, **keys) as a,
        front(tmp_path, "b", nats.address, **keys) as b,
    ):
        await asyncio.to_thread(
            wait_for, lambda: a.status()["cells"]["others"] == 1, why="they hear each other"
        )
        reader = Reader("stopped", N_TOKENS)
        there = asyncio.create_task(reader.read(a.url))
        await asyncio.to_thread(wait_for, lambda: a.status()["cells"]["replicated"], why="it runs")
        a.process.terminate()
        await there
        await finish(reader, b.url)
        assert reader.text == fake_text("stopped", N_TOKENS)
        show_gaps("a front is stopped", [reader.longest_gap_s])
        assert b.status()["cells"]["taken_over_total"] == 1


async def test_credentials_and_tls_are_used_and_plaintext_is_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    key, chain, trusted = (tmp_path / name for name in ("key.pem", "cert.pem", "ca.pem"))
    certificate.private_key_pem.write_to_path(str(key))
    certificate.cert_chain_pems[0].write_to_path(str(chain))
    authority.cert_pem.write_to_path(str(trusted))
    secret = tmp_path / "secret"
    secret.write_text("me:secret\n")
    secret.chmod(0o600)
    tls = ("--tls", "--tlscert", str(chain), "--tlskey", str(key))
    right = {"cells_credentials": secret, "cells_tls_ca": trusted}
    with nats_server(tmp_path / "nats", "--user", "me", "--pass", "secret", *tls) as server:
        address = f"tls://{server.address}"
        with front(tmp_path, "a", server.address, **right, cells_nats=address) as a:
            reader = Reader("hello", 20)
            await finish(reader, a.url)
            assert reader.answer_headers["x-gpufc-durable"] == "replicated"
    with nats_server(tmp_path / "open") as server:
        address = f"tls://{server.address}"
        with front(tmp_path, "b", server.address, **right, cells_nats=address, connects=False) as b:
            wait_for(lambda: "does not offer TLS" in log_of(b), why="plaintext is refused")
            assert not b.status()["cells"]["connected"]


def log_of(one: Service) -> str:
    return "".join(path.read_text() for path in one.runtime.logs.glob("*.log"))


async def test_a_purge_leaves_the_messages_from_its_number_on(nats: Nats) -> None:
    store = NatsStore(CellsConfig(cells_nats=f"nats://{nats.address}"))
    store.start()
    try:
        async with asyncio.timeout(60):
            while not store.is_connected:  # noqa: ASYNC110 - of a server
                await asyncio.sleep(0.01)
        numbers = [0]
        for text in (b"a", b"b", b"c"):
            numbers.append(await store.append("log.x", text, numbers[-1]))
        other = await store.append("log.y", b"other", 0)
        for before, left in ((0, b"abc"), (1, b"abc"), (numbers[2], b"bc"), (None, b"")):
            await store.purge("log.x", before)
            assert b"".join(data for _, data in await store.read("log.x")) == left
        assert await store.read("log.y") == [(other, b"other")]
    finally:
        await store.close()
