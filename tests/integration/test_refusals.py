"""What the system refuses, and an engine that is sick: neither is held against requests.

Real processes. Each test asserts that the fault hit, so that a miss cannot pass.
"""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from supervisor.descriptors import for_connections
from tests.integration.commands import fake_model
from tests.integration.fake_service import FAKE, complete, fake_text, joined, stream
from tests.service import POLL_S, limited, service, wait_for

SLOW = FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=10", "GPUFC_STANDBY": "none"}
N_TOKENS = 150
N_DESCRIPTORS = 256
N_IDLE = 500


async def until(
    session: aiohttp.ClientSession, url: str, holds: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """The first worker's row for which the condition holds. Over the session's own connection: the
    front may be unable to accept another one."""
    async with asyncio.timeout(60):
        while True:
            async with session.get(f"{url}/stats") as response:
                row: dict[str, Any] = (await response.json())["workers"][0]
            if holds(row):
                return row
            await asyncio.sleep(POLL_S)


def hanging(folder: Path) -> tuple[str, Path]:
    """A prompt whose stream cannot end before its worker is killed, and the file that is there once
    it hangs. It goes on in another worker."""
    hung = folder / "hung"
    return f"[[hang@20 once={hung}]] waits", hung


@contextlib.contextmanager
def standing(front: psutil.Process) -> Iterator[None]:
    """The front stands still meanwhile. It makes nothing anew that is taken from it."""
    front.suspend()
    try:
        wait_for(lambda: front.status() == psutil.STATUS_STOPPED, why="the front stands")
        yield
    finally:
        front.resume()


@contextlib.contextmanager
def idle_connections(url: str, n: int) -> Iterator[list[socket.socket]]:
    """So many connections that send nothing."""
    host, port = url.removeprefix("http://").split(":")
    held: list[socket.socket] = []
    try:
        for _ in range(n):
            held.append(socket.create_connection((host, int(port)), 10))
        yield held
    finally:
        for one in held:
            one.close()


def n_refused(connections: list[socket.socket]) -> int:
    """How many of them the front has closed."""
    count = 0
    for one in connections:
        one.setblocking(False)
        try:
            count += one.recv(1) == b""
        except BlockingIOError:
            pass
        except ConnectionError:
            count += 1
    return count


async def test_idle_connections_leave_the_descriptors_that_a_new_worker_needs(
    tmp_path: Path,
) -> None:
    prompt, hung = hanging(tmp_path)
    with service(tmp_path / "run", environ=SLOW, prefix=limited(N_DESCRIPTORS)) as running:
        url, allowed = running.url, for_connections(N_DESCRIPTORS)
        async with aiohttp.ClientSession() as session:
            streamed = asyncio.create_task(stream(session, url, prompt, max_tokens=N_TOKENS))
            await until(session, url, lambda _: hung.exists())
            flood = idle_connections(url, N_IDLE)
            held = await asyncio.to_thread(flood.__enter__)
            least = N_IDLE - allowed
            await asyncio.to_thread(wait_for, lambda: n_refused(held) >= least)
            assert running.front.num_fds() >= allowed
            epoch = running.kill_worker()
            await until(session, url, lambda r: r["state"] == "ready" and r["epoch"] > epoch)
            assert joined(await streamed) == fake_text(prompt, N_TOKENS)
            await asyncio.to_thread(flood.__exit__, None, None, None)
        assert "worker_not_started" not in (running.runtime.logs / "front.log").read_text()
        assert running.worker()["epoch"] == epoch + 1


async def test_a_start_without_descriptors_is_waited_out(tmp_path: Path) -> None:
    prompt, hung = hanging(tmp_path)
    with service(tmp_path / "run", environ=SLOW) as running:
        url, front = running.url, running.front
        async with aiohttp.ClientSession() as session:
            streamed = asyncio.create_task(stream(session, url, prompt, max_tokens=N_TOKENS))
            row = await until(session, url, lambda _: hung.exists())
            before = front.rlimit(psutil.RLIMIT_NOFILE)
            # beyond this number no descriptor is given out, and lower ones are taken
            front.rlimit(psutil.RLIMIT_NOFILE, (10, before[1]))
            os.kill(row["pid"], signal.SIGKILL)
            refused = await until(session, url, lambda r: r["epoch"] > row["epoch"] + 4)
            assert refused["state"] in {"backoff", "starting"}
            assert refused["restarts"] == row["restarts"] + 1
            assert not streamed.done()
            front.rlimit(psutil.RLIMIT_NOFILE, before)
            await until(session, url, lambda r: r["state"] == "ready")
            assert joined(await streamed) == fake_text(prompt, N_TOKENS)


def test_the_limit_of_descriptors_is_raised_at_start(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = min(hard, 512)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowered, hard))
    try:
        with service(tmp_path / "run", environ=FAKE) as running:
            now, _ = running.front.rlimit(psutil.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert now == min(hard, 1 << 20)


@pytest.mark.parametrize("standby", ["none", "warm"])
@pytest.mark.parametrize("gone", ["", "logs"])
async def test_a_stream_outlives_its_worker_and_the_runtime_folder(
    tmp_path: Path, gone: str, standby: str
) -> None:
    prompt, hung = hanging(tmp_path)
    with service(tmp_path / "run", environ=SLOW | {"GPUFC_STANDBY": standby}) as running:
        url, folder = running.url, running.runtime.path
        async with aiohttp.ClientSession() as session:
            streamed = asyncio.create_task(stream(session, url, prompt, max_tokens=N_TOKENS))
            row = await until(session, url, lambda _: hung.exists())
            token = running.runtime.admin_token.read_text()
            with standing(running.front):
                shutil.rmtree(folder / gone)
                os.kill(row["pid"], signal.SIGKILL)
            assert joined(await streamed) == fake_text(prompt, N_TOKENS)
            await until(session, url, lambda r: r["epoch"] > row["epoch"])
        wait_for(running.runtime.control_socket.exists, why="commands reach the front again")
        wait_for(running.runtime.admin_token.exists, why="the token is there again")
        assert running.runtime.admin_token.read_text() == token
        assert running.worker()["state"] == "ready"
        assert running.runtime.front_pid() == running.front.pid
        assert running.runtime.worker_log(row["name"]).exists()


@pytest.mark.parametrize("standby", ["none", "warm"])
async def test_a_file_in_the_runtime_folder_s_place_is_waited_out(
    tmp_path: Path, standby: str
) -> None:
    prompt, hung = hanging(tmp_path)
    with service(tmp_path / "run", environ=SLOW | {"GPUFC_STANDBY": standby}) as running:
        url, folder = running.url, running.runtime.path
        async with aiohttp.ClientSession() as session:
            streamed = asyncio.create_task(stream(session, url, prompt, max_tokens=N_TOKENS))
            row = await until(session, url, lambda _: hung.exists())
            with standing(running.front):
                shutil.rmtree(folder)
                folder.touch()
            os.kill(row["pid"], signal.SIGKILL)
            await until(session, url, lambda row: row["state"] == "backoff")
            folder.unlink()
            assert joined(await streamed) == fake_text(prompt, N_TOKENS)
        wait_for(running.runtime.control_socket.exists, why="commands reach the front again")


async def test_a_sick_engine_fails_convicts_no_request_and_comes_back_with_its_file(
    tmp_path: Path,
) -> None:
    model = fake_model(tmp_path / "m.gguf")
    script = model.with_name("m.gguf.script")
    environ = {"GPUFC_BACKEND": "fake", "GPUFC_STANDBY": "none"}
    with service(tmp_path / "run", "--model-path", str(model), environ=environ) as running:
        url = running.url
        script.write_text("nan=1")
        running.wait_epoch_after(running.kill_worker())  # loads what is sick, and was never tried
        async with aiohttp.ClientSession() as session:
            answers = await asyncio.gather(
                *(complete(session, url, f"honest {n}", max_tokens=5) for n in range(6))
            )
            codes = {(status, body["error"]["code"]) for status, body, _ in answers}
            assert codes == {(503, "engine_unavailable")}
            row = await until(session, url, lambda r: r["state"] == "failed")
            assert row["restarts"] <= 5
            assert "not finite" in row["detail"]
            async with session.get(f"{url}/readyz") as response:
                assert response.status == 503
            script.unlink()
            os.utime(model)
            await until(session, url, lambda r: r["state"] == "ready")
            for n in range(6):
                status, body, _ = await complete(session, url, f"honest {n}", max_tokens=5)
                assert status == 200, body
