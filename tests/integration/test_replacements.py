"""The engine is replaced on purpose, under load, and no client gets an error.

Each test asserts that the replacement happened, or did not, so that a command that did nothing
cannot pass.
"""

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.integration.commands import REFUSED, command, fake_model
from tests.integration.fake_service import FAKE, complete, fake_text, joined, stream
from tests.service import Gains, Service, service, wait_for

SLOW = FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=5"}
LONG, SHORT = 250, 20


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return fake_model(tmp_path / "old.gguf")


@pytest.fixture
def running(tmp_path: Path, old: Path) -> Iterator[Service]:
    with service(tmp_path / "run", "--model-path", str(old), environ=SLOW) as started:
        yield started


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service of all tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("refusing")
    model = str(fake_model(folder / "old.gguf"))
    with service(folder / "run", "--model-path", model, environ=SLOW) as started:
        yield started


@asynccontextmanager
async def load(running: Service, n_long: int = 4) -> AsyncIterator[None]:
    """Long streams, and clients that send one request after the other. At the end each must have
    got its own text, whole."""
    numbers, over = itertools.count(), asyncio.Event()
    n_answers, gains = 0, Gains(running)

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal n_answers
        while not over.is_set():
            prompt = f"short {next(numbers)}"
            status, body, _ = await complete(session, running.url, prompt, max_tokens=SHORT)
            assert (status, body) == (200, body), body
            assert body["choices"][0]["text"] == fake_text(prompt, SHORT)
            n_answers += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        prompts = [f"long {n}" for n in range(n_long)]
        streams = [
            asyncio.create_task(stream(session, running.url, prompt, max_tokens=LONG))
            for prompt in prompts
        ]
        clients = [asyncio.create_task(client(session)) for _ in range(2)]
        await asyncio.to_thread(
            wait_for, lambda: gains.of("tokens", "generated_total") > (60,), why="load"
        )
        try:
            yield
        finally:
            before = n_answers
            while n_answers < before + 4:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
            over.set()
            answers = await asyncio.gather(*streams)
            await asyncio.gather(*clients)
    for prompt, events in zip(prompts, answers, strict=True):
        assert joined(events) == fake_text(prompt, LONG)
        assert len({json.loads(event)["system_fingerprint"] for event in events[:-1]}) == 1
    names = ("failed_total", "lost_total", "cancelled_total", "rejected_total")
    assert gains.of("requests", *names) == (0, 0, 0, 0)


async def test_swaps_under_load_to_and_fro(running: Service, old: Path, tmp_path: Path) -> None:
    new = fake_model(tmp_path / "new.gguf")
    async with load(running):
        for target in (new, old, new):
            pid = running.worker()["pid"]
            code, said = await command(running, "swap", str(target))
            assert code == 0, said
            assert said.splitlines()[-1].startswith(f"default-0 serves {target.name}: pid ")
            row = running.worker()
            assert (row["model_path"], row["state"]) == (str(target), "ready")
            assert row["pid"] != pid
    rows = await asyncio.to_thread(
        wait_for, lambda: len(found := running.status()["workers"]) == 1 and found, why="one left"
    )
    assert (rows[0]["restarts"], rows[0]["last_exit"]["reason"]) == (3, "swapped")


async def test_a_canary_that_is_fine_takes_over_under_load(
    running: Service, tmp_path: Path
) -> None:
    new = fake_model(tmp_path / "new.gguf")
    options = ("--canary", "0.5", "--canary-requests", "5", "--canary-s", "0")
    async with load(running):
        code, said = await command(running, "swap", str(new), *options)
        assert code == 0, said
        assert "the new model serves a share of the requests" in said
        assert running.worker()["model_path"] == str(new)


async def test_a_canary_that_is_slower_is_rolled_back_by_itself(
    running: Service, old: Path, tmp_path: Path
) -> None:
    slow = fake_model(tmp_path / "slow.gguf", "step_ms=40")
    pid = running.worker()["pid"]
    async with load(running):
        code, said = await command(running, "swap", str(slow), "--canary", "0.5")
        assert code == REFUSED, said
        assert "the canary was rolled back" in said
        assert "token takes" in said
    row = running.worker()
    assert (row["pid"], row["model_path"]) == (pid, str(old))


async def test_after_a_swap_new_requests_get_the_new_model_under_the_old_name(
    running: Service, tmp_path: Path
) -> None:
    new = fake_model(tmp_path / "new.gguf")
    async with aiohttp.ClientSession() as session:
        _, before, _ = await complete(session, running.url, "x")
        assert (await command(running, "swap", str(new), "--name", "fresh"))[0] == 0
        answers = [
            await complete(session, running.url, "x", model=name)
            for name in ("old", "old.gguf", "new", "new.gguf", "fresh", "default")
        ]
        status, body, _ = await complete(session, running.url, "x", model="other")
    assert status == 404, body
    for status, body, _ in answers:
        assert (status, body["model"]) == (200, "old")
        assert body["system_fingerprint"] != before["system_fingerprint"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("load_fail=1", "the fake model does not load"),
        ("load_fault=segv", "crashed (SIGSEGV)"),
        ("nan=1", "its trial failed"),
        (f"load_short={1 << 50}", "not enough memory"),
    ],
)
async def test_a_swap_that_must_be_refused_leaves_the_old_model_serving(
    refusing: Service, tmp_path: Path, script: str, why: str
) -> None:
    bad = fake_model(tmp_path / "bad.gguf", script)
    before = refusing.worker()
    async with load(refusing):
        code, said = await command(refusing, "swap", str(bad))
    last = said.splitlines()[-1]
    assert code == REFUSED, said
    assert last.startswith("error: ")
    assert why in last
    assert last.endswith("; the model before goes on serving")
    after = refusing.worker()
    for name in ("pid", "epoch", "model_path", "restarts", "state"):
        assert after[name] == before[name]
    assert "bad" not in await _known_names(refusing)


async def _known_names(running: Service) -> str:
    async with aiohttp.ClientSession() as session:
        status, _, _ = await complete(session, running.url, "x", model="bad")
        assert status == 404
        async with session.get(f"{running.url}/v1/models") as response:
            return await response.text()


async def test_without_room_for_both_requests_wait_and_none_is_refused(
    running: Service, tmp_path: Path
) -> None:
    script = f"load_s=1, load_short=1, fail_once_file={tmp_path / 'once'}"
    new = fake_model(tmp_path / "new.gguf", script)
    async with load(running):
        code, said = await command(running, "swap", str(new))
    assert code == 0, said
    assert "running requests end on the old model first (there is not room for both)" in said
    assert running.worker()["model_path"] == str(new)


async def test_without_room_for_both_and_a_model_that_fails_the_old_one_is_loaded_again(
    running: Service, old: Path, tmp_path: Path
) -> None:
    bad = fake_model(
        tmp_path / "bad.gguf", f"nan=1, load_short=1, fail_once_file={tmp_path / 'once'}"
    )
    pid = running.worker()["pid"]
    async with load(running):
        code, said = await command(running, "swap", str(bad))
    assert code == REFUSED, said
    assert "loading the model before again" in said
    assert said.splitlines()[-1].endswith("which is loaded again")
    row = running.worker()
    assert (row["model_path"], row["state"]) == (str(old), "ready")
    assert row["pid"] != pid


async def test_restarts_under_load(running: Service, tmp_path: Path) -> None:
    epochs, hung = [running.worker()["epoch"]], tmp_path / "hung"
    prompt = f"[[hang@10 once={hung}]] goes on"  # no sequence ends before the last restart
    async with load(running), aiohttp.ClientSession() as session:
        for _ in range(3):
            code, said = await command(running, "restart")
            assert code == 0, said
            epochs.append(running.worker()["epoch"])
        going = asyncio.create_task(stream(session, running.url, prompt, max_tokens=SHORT))
        await asyncio.to_thread(wait_for, hung.exists, why="a sequence is there")
        assert (await command(running, "restart", "default-0", "--now"))[0] == 0
        epochs.append(running.worker()["epoch"])
        assert joined(await going) == fake_text(prompt, SHORT)
    assert epochs == sorted(set(epochs))
    assert running.status()["requests"]["replayed_total"] > 0


async def test_a_restart_that_cannot_be_leaves_the_old_worker_and_says_why(
    running: Service, old: Path
) -> None:
    pid = running.worker()["pid"]
    old.with_name("old.gguf.script").write_text("load_fail=1")
    async with load(running):
        code, said = await command(running, "restart")
    assert code == 3, said
    assert "the one before serves on: the fake model does not load" in said.splitlines()[-1]
    assert running.worker()["pid"] == pid


async def test_a_leaking_worker_is_recycled_under_load(tmp_path: Path) -> None:
    environ = SLOW | {
        "GPUFC_FAKE_SCRIPT": "step_ms=5,leak_kb=256",
        "GPUFC_RECYCLE_GROWTH_BYTES": str(32 << 20),
    }
    with service(tmp_path / "run", environ=environ) as leaking:
        pid = leaking.worker()["pid"]
        async with load(leaking):
            row = await asyncio.to_thread(
                wait_for,
                lambda: (found := leaking.worker())["restarts"] == 1 and found,
                60,
                "it is recycled",
            )
        assert row["pid"] != pid
        assert row["last_exit"]["reason"] == "recycled"


async def test_a_hot_spare_goes_on_at_once(tmp_path: Path) -> None:
    environ = SLOW | {"GPUFC_STANDBY": "hot", "GPUFC_FAKE_SCRIPT": "step_ms=5,load_s=1.5"}
    with service(tmp_path / "run", environ=environ) as hot:
        for _ in range(2):
            spare = await asyncio.to_thread(wait_for, lambda: _hot_spare(hot), 60, "a hot spare")
            async with aiohttp.ClientSession() as session:
                epoch = hot.kill_worker(signal.SIGKILL)
                status, body, _ = await complete(session, hot.url, "at once")
            row = hot.worker()
            assert (status, body["choices"][0]["text"]) == (200, fake_text("at once", 20))
            assert row["epoch"] != epoch
            assert row["pid"] == spare


def _hot_spare(running: Service) -> int | None:
    rows = running.status()["spares"]
    return next((row["pid"] for row in rows if row["state"] == "hot"), None)


async def test_swap_over_http_with_the_token_that_start_prints(
    running: Service, old: Path, tmp_path: Path
) -> None:
    token = await asyncio.to_thread(running.printed_after, "/?token=")
    headers = {"Authorization": f"Bearer {token}"}
    new, bad = fake_model(tmp_path / "new.gguf"), fake_model(tmp_path / "bad.gguf", "nan=1")
    async with load(running), aiohttp.ClientSession(headers=headers) as session:

        async def swap(path: Path) -> tuple[int, dict[str, object]]:
            body = {"model_path": str(path)}
            async with session.post(f"{running.url}/admin/swap", json=body) as answer:
                return answer.status, await answer.json()

        status, body = await swap(new)
        assert (status, body["workers"][0]["model_path"]) == (200, str(new))  # type: ignore[index]
        status, body = await swap(bad)
        assert (status, body["error"]["code"]) == (409, "swap_refused")  # type: ignore[index]
        async with session.post(f"{running.url}/admin/restart", json={}) as answer:
            assert answer.status == 200
    assert running.worker()["model_path"] == str(new)
