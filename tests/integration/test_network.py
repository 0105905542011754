"""A real front in the network of a stand-in control server, while workers die and fronts change."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes.control_server import CLIENT_ID, Answer, ControlServer, control_server
from tests.integration.commands import command
from tests.integration.fake_service import FAKE, fake_text
from tests.service import Service, lives, service, wait_for

STEP = "step_ms=5"


@pytest.fixture
async def server() -> AsyncIterator[ControlServer]:
    async with control_server() as started:
        yield started


def network(server: ControlServer) -> dict[str, str]:
    return FAKE | {
        "GPUFC_FAKE_SCRIPT": STEP,
        "GPUFC_SERVER_ADDR": "127.0.0.1",
        "GPUFC_CONTROL_PORT": str(server.port),
        "GPUFC_CLIENT_ID": CLIENT_ID.hex(),
        "GPUFC_NETWORK_QUEUE": "1000",
    }


async def soon(what: Callable[[], Any], why: str) -> Any:
    """`wait_for` in a thread: the server answers meanwhile."""
    return await asyncio.to_thread(wait_for, what, why=why)


def require_whole(answer: Answer, prompt: str, n_tokens: int) -> None:
    """Every token once, numbers without a gap, one `done` at the end."""
    chunks = answer.chunks
    assert [chunk.seq for chunk in chunks] == [*range(len(chunks))]
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    last = chunks[-1]
    assert (last.error, last.completion_tokens) == (None, n_tokens)
    assert answer.text() == fake_text(prompt, n_tokens)


@pytest.mark.parametrize(
    ("n_tasks", "n_tokens", "every_s"),
    [(12, 60, None), pytest.param(50, 400, 2.0, marks=pytest.mark.slow)],
)
async def test_tasks_are_complete_although_the_worker_is_killed_again_and_again(
    server: ControlServer,
    tmp_path: Path,
    n_tasks: int,
    n_tokens: int,
    every_s: float | None,
) -> None:
    """The worker is killed once, or every so many seconds until the last task is complete."""
    with service(tmp_path / "run", environ=network(server)) as running:
        peer = await server.joined()
        prompts = [f"task {n}" for n in range(n_tasks)]
        tasks = {p: server.complete(peer, p, max_tokens=n_tokens) for p in prompts}
        answers = list(server.answers.values())
        await server.until(lambda: any(answer.chunks for answer in answers))
        n_kills = 0
        while n_kills == 0 or (every_s and not all(one.done.is_set() for one in answers)):
            epoch = await asyncio.to_thread(running.kill_worker, signal.SIGKILL)
            await asyncio.to_thread(running.wait_epoch_after, epoch)
            n_kills += 1
            await asyncio.sleep(every_s or 0.0)
        for prompt, task_id in tasks.items():
            async with asyncio.timeout(120):
                await server.answers[task_id].end()
            require_whole(server.answers[task_id], prompt, n_tokens)
        assert len(server.logins) == 1
        shown = running.status()["network"]
        assert shown["tasks"]["succeeded"] == n_tasks
        assert running.worker()["restarts"] == n_kills
        assert n_kills >= 4 or every_s is None
        await require_a_polite_end(server, running)


async def require_a_polite_end(server: ControlServer, running: Service) -> None:
    """A stop lets a task end, leaves the network, and ends the front."""
    task_id = server.complete(server.active[CLIENT_ID], "last", max_tokens=100)
    await server.until(lambda: server.answers[task_id].chunks)
    running.process.send_signal(signal.SIGTERM)
    await server.until(lambda: not server.active)
    require_whole(server.answers[task_id], "last", 100)
    assert await asyncio.to_thread(running.process.wait, 60) == 0


@pytest.mark.slow
async def test_a_hang_of_the_worker_costs_a_task_no_token(
    server: ControlServer, tmp_path: Path
) -> None:
    with service(tmp_path / "run", environ=network(server)) as running:
        peer = await server.joined()
        task_id = server.complete(peer, "hello", max_tokens=200)
        answer = server.answers[task_id]
        await server.until(lambda: answer.chunks)
        await asyncio.to_thread(running.kill_worker, signal.SIGSTOP)
        async with asyncio.timeout(60):
            await answer.end()
        require_whole(answer, "hello", 200)


@pytest.mark.slow
async def test_operators_see_the_session_leave_it_and_join_again(
    server: ControlServer, tmp_path: Path
) -> None:
    with service(tmp_path / "run", environ=network(server)) as running:
        await server.joined()
        await server.until(lambda: server.online)
        await soon(lambda: running.status()["network"]["last_heartbeat_at"], "a heartbeat")
        code, said = await command(running, "fabric", "status")
        assert (code, "online" in said, "0011…eeff" in said) == (0, True, True)
        assert "network" in (await command(running, "status"))[1]
        code, said = await command(running, "fabric", "disconnect")
        assert (code, "off" in said) == (0, True), said
        await server.until(lambda: not server.active)
        assert (await command(running, "fabric", "connect"))[0] == 0
        await server.joined()
        _, config = await command(running, "config", "show", "--running")
        assert "(hidden)" in config
        logs = "".join(p.read_text() for p in running.runtime.path.rglob("*.log"))
        for text in (said, config, logs, running.output):
            assert CLIENT_ID.hex() not in text
        assert "network_joined" in logs


@pytest.mark.slow
async def test_tasks_live_through_two_upgrades_in_a_row(
    server: ControlServer, tmp_path: Path
) -> None:
    slow = {"GPUFC_MAX_CONCURRENT_REQUESTS": "4", "GPUFC_FAKE_SCRIPT": "step_ms=20"}
    with service(tmp_path / "run", environ=network(server) | slow) as running:
        peer = await server.joined()
        prompts = [f"task {n}" for n in range(8)]
        tasks = {p: server.complete(peer, p, max_tokens=400) for p in prompts}
        await server.until(lambda: any(answer.chunks for answer in server.answers.values()))
        try:
            for n_logins in (2, 3):
                code, said = await command(running, "upgrade")
                assert code == 0, said
                await server.until(lambda n=n_logins: len(server.logins) == n)
                await server.joined()
            last = server.complete(server.active[CLIENT_ID], "last", max_tokens=20)
            for prompt, task_id in (tasks | {"last": last}).items():
                async with asyncio.timeout(120):
                    await server.answers[task_id].end()
                require_whole(server.answers[task_id], prompt, 20 if prompt == "last" else 400)
            assert len(server.logins) == 3
            assert running.status()["network"]["detail"] == ""
        finally:
            front = running.runtime.front_pid()
            if front is not None:
                await end_front(running, front)


async def end_front(running: Service, pid: int) -> None:
    front = psutil.Process(pid)
    front.terminate()
    await soon(lambda: not lives(front), "the new front has ended")
