"""A front is replaced by a new one while clients and the worker stay: no request is lost."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.integration.commands import command, fake_model
from tests.integration.fake_service import (
    ENDLESS,
    WIDE,
    complete,
    fake_text,
    joined,
    stream,
    unread,
)
from tests.integration.upgradable import N_TOKENS, Running, upgradable
from tests.service import lives, wait_for

N_STREAMS = 50


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with upgradable(tmp_path) as found:
        yield found


@asynccontextmanager
async def flow(url: str, *, keep_alive: bool) -> AsyncIterator[list[tuple[str, object]]]:
    """Two clients that send one request after the other. Yields their answers and errors."""
    outcomes: list[tuple[str, object]] = []
    numbers, over = itertools.count(), asyncio.Event()
    connector = aiohttp.TCPConnector(force_close=not keep_alive)

    async def client(session: aiohttp.ClientSession) -> None:
        while not over.is_set():
            prompt = f"flow {keep_alive} {next(numbers)}"
            try:
                status, body, _ = await complete(session, url, prompt, max_tokens=3)
            except aiohttp.ClientError as err:
                outcomes.append((prompt, err))
                continue
            outcomes.append((prompt, body["choices"][0]["text"] if status == 200 else body))

    async with aiohttp.ClientSession(connector=connector) as session:
        tasks = [asyncio.create_task(client(session)) for _ in range(2)]
        try:
            yield outcomes
        finally:
            over.set()
            await asyncio.gather(*tasks)


def check_flow(outcomes: list[tuple[str, object]]) -> None:
    assert len(outcomes) > 2
    assert [(p, got) for p, got in outcomes if got != fake_text(p, 3)] == []


async def test_an_upgrade_under_load_is_not_noticed(running: Running) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        flow(running.url, keep_alive=True) as kept,
        flow(running.url, keep_alive=False) as fresh,
    ):
        streams = [
            asyncio.create_task(stream(session, running.url, f"stream {n}", max_tokens=N_TOKENS))
            for n in range(N_STREAMS)
        ]
        before = running.service.status()["tokens"]["generated_total"]
        code, said = await running.upgrade()
        assert code == 0, said
        answers = await asyncio.gather(*streams)
        n_after = len(fresh)
        while len(fresh) < n_after + 3:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
    for n, events in enumerate(answers):
        assert joined(events) == fake_text(f"stream {n}", N_TOKENS)
    check_flow(kept)
    check_flow(fresh)
    await running.until_old_is_gone()
    assert not lives(running.old)
    status = running.service.status()
    assert status["front"]["pid"] != running.old.pid
    assert status["front"]["addresses"] == [running.url]
    row = status["workers"][0]
    assert (row["pid"], row["state"], row["restarts"]) == (running.worker.pid, "ready", 0)
    requests = status["requests"]
    assert (requests["lost_total"], requests["failed_total"], requests["rejected_total"]) == (
        0,
        0,
        0,
    )
    assert status["tokens"]["generated_total"] >= before + N_STREAMS
    assert running.service.runtime.front_pid() == status["front"]["pid"]
    left = sorted(path.name for path in running.service.runtime.path.iterdir())
    (link,) = [name for name in left if name.startswith("w-")]
    assert left == ["admin-token", "control.sock", "front.lock", "logs", link]


async def test_after_two_upgrades_the_worker_can_be_replaced_and_stopped(running: Running) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            code, said = await running.upgrade()
            assert code == 0, said
        assert running.service.worker()["pid"] == running.worker.pid
        front = running.front()
        epoch = running.service.kill_worker(signal.SIGSEGV)
        row = await asyncio.to_thread(running.service.wait_epoch_after, epoch)
        assert (row["last_exit"]["reason"], row["last_exit"]["signal"]) == (
            "crashed",
            signal.SIGSEGV,
        )
        assert row["restarts"] == 1
        status, body, _ = await complete(session, running.url, "again")
        assert (status, body["choices"][0]["text"]) == (200, fake_text("again", 20))
    worker = psutil.Process(row["pid"])
    front.terminate()
    wait_for(lambda: not lives(front) and not lives(worker), why="all gone")
    assert sorted(p.name for p in running.service.runtime.path.glob("*.sock")) == []


async def test_a_swapped_model_stays_and_so_does_its_next_worker(tmp_path: Path) -> None:
    old, new = fake_model(tmp_path / "old.gguf"), fake_model(tmp_path / "new.gguf")
    with upgradable(tmp_path, "--model-path", str(old)) as running:
        assert (await command(running.service, "swap", str(new)))[0] == 0
        worker = running.service.worker()["pid"]
        assert (await running.upgrade())[0] == 0
        row = running.service.worker()
        assert (row["pid"], row["model_path"]) == (worker, str(new))
        assert (await command(running.service, "restart"))[0] == 0
        row = running.service.worker()
        assert row["pid"] != worker
        assert (row["model_path"], row["restarts"]) == (str(new), 2)
        async with aiohttp.ClientSession() as session:
            for name in ("old", "new.gguf"):
                assert (await complete(session, running.url, "x", model=name))[0] == 200


async def test_a_hot_spare_is_made_anew(tmp_path: Path) -> None:
    def hot(found: Running) -> int | None:
        rows = found.service.status()["spares"]
        return next((row["pid"] for row in rows if row["state"] == "hot"), None)

    with upgradable(tmp_path, GPUFC_STANDBY="hot") as running:
        before = psutil.Process(await asyncio.to_thread(wait_for, lambda: hot(running)))
        assert (await running.upgrade())[0] == 0
        assert running.service.worker()["pid"] == running.worker.pid
        after = await asyncio.to_thread(wait_for, lambda: hot(running), why="a hot spare")
        assert after != before.pid
        assert not lives(before)


async def test_a_worker_that_dies_right_after_is_replaced_and_streams_go_on(
    running: Running,
) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        streams = [
            asyncio.create_task(stream(session, running.url, f"s {n}", max_tokens=400))
            for n in range(8)
        ]
        upgrade = asyncio.create_task(running.upgrade())
        await asyncio.to_thread(
            wait_for, lambda: running.service.status()["front"]["pid"] != running.old.pid
        )
        running.worker.kill()
        new = asyncio.create_task(stream(session, running.url, "new", max_tokens=20))
        for n, events in enumerate(await asyncio.gather(*streams)):
            assert joined(events) == fake_text(f"s {n}", 400)
        assert joined(await new) == fake_text("new", 20)
        assert (await upgrade)[0] == 0
    row = running.service.worker()
    assert row["pid"] != running.worker.pid
    assert (row["restarts"], row["last_exit"]["signal"]) == (1, signal.SIGKILL)


async def test_the_command_returns_when_the_new_front_serves_and_says_what_is_left(
    tmp_path: Path,
) -> None:
    with upgradable(tmp_path, **WIDE) as running:
        async with aiohttp.ClientSession() as session:
            text = asyncio.create_task(stream(session, running.url, "x", max_tokens=ENDLESS))
            await asyncio.to_thread(
                wait_for, lambda: running.service.status()["tokens"]["generated_total"] > 3
            )
            code, said = await running.upgrade()
            pid = running.front().pid
            assert code == 0
            assert f"upgraded: the front is pid {pid} now" in said
            left = f"the old one (pid {running.old.pid}) still answers 1 request, then ends"
            assert left in said
            assert lives(running.old)
            assert not text.done()
            text.cancel()
            await asyncio.gather(text, return_exceptions=True)
        await running.until_old_is_gone()


async def test_readers_that_take_nothing_keep_no_old_front(tmp_path: Path) -> None:
    wide = {
        "GPUFC_N_CTX": "40000",
        "GPUFC_KV_CELLS": "400000",
        "GPUFC_FAKE_SCRIPT": "step_ms=1",
        "GPUFC_SHUTDOWN_TIMEOUT_S": "2",
    }
    with upgradable(tmp_path, **wide) as running:
        client = unread(running.url)
        await asyncio.to_thread(
            wait_for, lambda: running.service.status()["requests"]["running"] == 8
        )
        for _ in range(2):
            code, said = await running.upgrade()
            assert code == 0, said
        async with aiohttp.ClientSession() as session:
            reading = asyncio.create_task(stream(session, running.url, "y", max_tokens=300))
            await running.until_old_is_gone()
            assert joined(await reading) == fake_text("y", 300)
        log = (running.service.runtime.logs / "front.log").read_text()
        assert "stalled_client_cut_off" in log
        await asyncio.to_thread(running.service.wait_idle)
        client.close()


async def test_commands_that_leave_early_leave_no_error_in_the_log(running: Running) -> None:
    for _ in range(2):
        for name in ("restart", "upgrade"):
            assert (await command(running.service, name))[0] == 0
    log = (running.service.runtime.logs / "front.log").read_text()
    assert " ERROR " not in log
    assert "Traceback" not in log


async def test_of_several_models_the_loaded_one_goes_on_and_the_others_can_be_loaded(
    tmp_path: Path,
) -> None:
    tables = [f'[models.{name}]\nmodel_path = "/{name}.fake"\n' for name in ("one", "two")]
    models = f"[model]\nbackend = 'fake'\n{tables[0]}preload = true\n{tables[1]}"
    with upgradable(tmp_path, models=models) as running:
        async with aiohttp.ClientSession() as session:
            going = asyncio.create_task(
                stream(session, running.url, "long", model="one", max_tokens=N_TOKENS)
            )
            code, said = await running.upgrade()
            assert code == 0, said
            assert joined(await going) == fake_text("long", N_TOKENS)
            assert running.service.worker()["pid"] == running.worker.pid
            rows = {row["name"]: row["state"] for row in running.service.status()["models"]}
            assert rows["two"] == "unloaded"
            status, body, _ = await complete(session, running.url, "hello", model="two")
            if status == 503:  # on the connection that the old front has kept for its stream
                assert "on a new connection" in body["error"]["message"]
                status, body, _ = await complete(session, running.url, "hello", model="two")
            assert status == 200, body
            assert body["choices"][0]["text"] == fake_text("hello", 20)
        await running.until_old_is_gone()
