"""The front and its surroundings: signals, held terminals, closed descriptors, core files, orphans.

Real processes with the scripted engine.
"""

import asyncio
import json
import os
import pty
import resource
import signal
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import psutil
import pytest

from gpufc.signals import STRAY
from tests.integration.commands import command
from tests.integration.fake_service import ENDLESS, FAKE, WIDE, complete, fake_text, joined, stream
from tests.integration.upgradable import upgraded_ended
from tests.service import Gains, Service, lives, service, wait_for, zombies

N_TOKENS = 300
SLOW = FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=5"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service of all tests that do not end its front."""
    with service(tmp_path_factory.mktemp("shared") / "run", environ=SLOW) as started:
        yield started


async def began(running: Service) -> None:
    """Wait until a stream generates. On a busy machine it may have ended when this returns."""
    gains = Gains(running)

    def has_generated() -> bool:
        return gains.of("tokens", "generated_total") > (3,)

    await asyncio.to_thread(wait_for, has_generated, why="a stream generates")


# signals


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGXCPU])
async def test_a_stream_ends_whole_after_a_draining_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    terminal, output = pty.openpty()
    with service(tmp_path / "run", environ=SLOW, output=output) as running:
        os.close(output)
        async with aiohttp.ClientSession() as session:
            text = asyncio.create_task(stream(session, running.url, "x", max_tokens=N_TOKENS))
            await began(running)
            os.close(terminal)
            for _ in range(1 if number is signal.SIGTERM else 3):  # a shell and the kernel send it
                os.kill(running.process.pid, number)
            assert joined(await text) == fake_text("x", N_TOKENS)
        assert await asyncio.to_thread(running.process.wait, 60) == 0
        assert list(running.runtime.path.glob("*.sock")) == []


async def test_sigquit_ends_streams_with_their_terminal_message(tmp_path: Path) -> None:
    with service(tmp_path / "run", environ=SLOW | WIDE) as running:
        async with aiohttp.ClientSession() as session:
            url = running.url
            text = asyncio.create_task(stream(session, url, "x", max_tokens=ENDLESS))
            await began(running)
            os.kill(running.process.pid, signal.SIGQUIT)
            events = await text
        assert events[-1] == "[DONE]"
        assert json.loads(events[-2])["error"]["code"] == "overloaded"
        assert await asyncio.to_thread(running.process.wait, 60) == 0


async def test_stray_signals_end_neither_front_nor_worker(shared: Service) -> None:
    gains, worker = Gains(shared), shared.worker()["pid"]
    async with aiohttp.ClientSession() as session:
        text = asyncio.create_task(stream(session, shared.url, "x", max_tokens=N_TOKENS))
        await began(shared)
        for number in STRAY:
            os.kill(shared.process.pid, number)
            os.kill(worker, number)
        for number in (signal.SIGINT, signal.SIGHUP):  # those of a terminal, for its whole session
            os.kill(worker, number)
        assert joined(await text) == fake_text("x", N_TOKENS)
    assert gains.restarts() == 0


async def test_a_front_that_took_over_treats_signals_alike(tmp_path: Path) -> None:
    with service(tmp_path / "run", environ=SLOW) as running, upgraded_ended(running):
        url = running.url
        code, said = await command(running, "upgrade")
        assert code == 0, said
        front = psutil.Process(running.status()["front"]["pid"])
        async with aiohttp.ClientSession() as session:
            text = asyncio.create_task(stream(session, url, "x", max_tokens=N_TOKENS))
            await began(running)
            for number in (*STRAY, signal.SIGHUP, signal.SIGTERM):
                front.send_signal(number)
            assert joined(await text) == fake_text("x", N_TOKENS)
        await asyncio.to_thread(wait_for, lambda: not lives(front), why="it has drained")


def test_nohup_keeps_the_front_through_a_hang_up(tmp_path: Path) -> None:
    ignoring = ("sh", "-c", 'trap "" HUP && exec "$@"', "sh")
    with service(tmp_path / "run", environ=SLOW, prefix=ignoring) as running:
        os.kill(running.process.pid, signal.SIGHUP)
        epoch = running.kill_worker()
        running.wait_epoch_after(epoch)


# terminals and pipes


async def lives_through_a_death(running: Service) -> None:
    """A stream goes on, and a probe is answered, while a worker dies and the front warns of it."""
    url = running.url
    async with aiohttp.ClientSession() as session:
        text = asyncio.create_task(stream(session, url, "x", max_tokens=60))
        await began_or_done(running, text)
        epoch = await asyncio.to_thread(running.kill_worker)
        assert joined(await asyncio.wait_for(text, 60)) == fake_text("x", 60)
        await asyncio.to_thread(running.wait_epoch_after, epoch)
        async with session.get(f"{url}/livez", timeout=aiohttp.ClientTimeout(60)) as response:
            assert response.status == 200


async def began_or_done(running: Service, text: "asyncio.Task[list[str]]") -> None:
    await asyncio.to_thread(
        wait_for, lambda: text.done() or running.status()["requests"]["running"] == 1
    )


async def test_a_held_terminal_stops_nothing(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        with service(tmp_path / "run", environ=SLOW, output=theirs) as running:
            termios.tcflow(theirs, termios.TCOOFF)  # Ctrl-S
            await lives_through_a_death(running)
            running.process.terminate()
            assert await asyncio.to_thread(running.process.wait, 60) == 0
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_full_pipe_stops_nothing(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    try:
        os.set_blocking(theirs, False)
        with suppress(BlockingIOError):
            while True:
                os.write(theirs, b"x" * 4096)
        os.set_blocking(theirs, True)
        with service(tmp_path / "run", environ=SLOW, output=theirs) as running:
            await lives_through_a_death(running)
            running.process.terminate()
            assert await asyncio.to_thread(running.process.wait, 60) == 0
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    "closed",
    [
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("0<&-", "1>&-", "2>&-")),
        "0<&- 1>&- 2>&-",
    ],
)
async def test_a_closed_standard_descriptor_is_no_obstacle(tmp_path: Path, closed: str) -> None:
    without = ("sh", "-c", f'exec "$@" {closed}', "sh")
    with service(tmp_path / "run", environ=FAKE, prefix=without) as running:
        async with aiohttp.ClientSession() as session:
            status, body, _ = await complete(session, running.url, "x")
        assert (status, body["choices"][0]["text"]) == (200, fake_text("x", 20))
        running.process.terminate()
        assert await asyncio.to_thread(running.process.wait, 60) == 0


# secrets


async def test_status_can_be_passed_on_and_start_still_prints_the_admin_link(
    shared: Service,
) -> None:
    token = shared.runtime.admin_token.read_text()
    for arguments in ((), ("--json",)):
        code, said = await command(shared, "status", *arguments)
        assert (code, token in said) == (0, False)
    link = await asyncio.to_thread(shared.printed_after, "admin ")
    assert link.strip() == f"{shared.url}/?token={token}"


# core files, /proc, orphans


async def test_no_front_leaves_a_core_file(tmp_path: Path) -> None:
    unlimited = ("sh", "-c", 'ulimit -c unlimited && cd "$0" && exec "$@"', str(tmp_path))
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("the hard limit of core files is lower")
    with (
        service(tmp_path / "run", environ=FAKE, prefix=unlimited) as running,
        upgraded_ended(running),
    ):
        assert running.front.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        code, said = await command(running, "upgrade")
        assert code == 0, said
        front = psutil.Process(running.status()["front"]["pid"])
        assert front.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        front.send_signal(signal.SIGSEGV)
        await asyncio.to_thread(wait_for, lambda: not lives(front), why="it has ended")
    assert [name for name in os.listdir(tmp_path) if name.startswith("core")] == []


def test_without_memory_the_kernel_ends_a_worker_and_not_the_front(shared: Service) -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    status = shared.status()
    workers = [row["pid"] for row in (*status["workers"], *status["spares"])]
    assert workers
    assert all(score(pid) > score(status["front"]["pid"]) for pid in workers)


def test_processes_that_a_dead_worker_leaves_are_reaped(shared: Service) -> None:
    for _ in range(2):
        worker = psutil.Process(shared.worker()["pid"])
        left = wait_for(lambda at=worker: at.children(recursive=True), why="its templates")
        epoch = shared.kill_worker()
        shared.wait_epoch_after(epoch)
        wait_for(lambda known=left: not any(map(psutil.Process.is_running, known)))
    wait_for(lambda: not zombies(shared.front), why="all children are reaped")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a process namespace")
def test_as_process_1_it_leaves_no_zombies(tmp_path: Path) -> None:
    alone = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--")
    with service(tmp_path / "run", environ=FAKE, prefix=alone) as running:
        (front,) = running.front.children()
        for _ in range(2):
            row = running.worker()
            alive = filter(lives, front.children())
            worker = next(each for each in alive if "--boot-fd" in " ".join(each.cmdline()))
            worker.kill()
            running.wait_epoch_after(row["epoch"])
        wait_for(lambda: not zombies(front), why="all children are reaped")
        front.terminate()


async def test_a_running_front_bounds_its_logs_and_writes_on(shared: Service) -> None:
    async with aiohttp.ClientSession() as session:  # a worker that works is replaced at once
        assert joined(await stream(session, shared.url, "x")) == fake_text("x", 20)
    logs = [shared.runtime.logs / name for name in ("front.log", "default-0.log")]
    for log in logs:
        with log.open("ab") as file:
            file.write(b"line\n" * (4 << 20))

    def rotated() -> bool:
        with suppress(FileNotFoundError):  # renamed, and not made anew yet
            return all(log.stat().st_size < 1 << 20 for log in logs)
        return False

    await asyncio.to_thread(wait_for, rotated, why="logs are rotated")
    epoch = await asyncio.to_thread(shared.kill_worker, signal.SIGABRT)
    await asyncio.to_thread(shared.wait_epoch_after, epoch)
    ended = f"worker_ended worker=default-0 epoch={epoch} ".encode()

    def last_words() -> bool:
        front, worker = (log.read_bytes() for log in logs)
        return ended in front and b"SIGABRT" in front and b"Fatal Python error: Aborted" in worker

    await asyncio.to_thread(wait_for, last_words, why="front and worker have written on")
    assert all(log.with_name(f"{log.name}.1").exists() for log in logs)
