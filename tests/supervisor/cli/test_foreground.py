"""`start` in the foreground: its messages, and the effect of signals."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from gpufc.config import Config
from gpufc.errors import StartError
from supervisor import front_process
from supervisor.cli.foreground import Foreground
from supervisor.outlet import Terminal
from supervisor.runtime_dir import RuntimeDir
from tests.supervisor.control.fake_front import document, worker

FOLDER = RuntimeDir.find("/r")


class FakeFront:
    """Ready when told so; ends when its requests have, or at once."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.fault: StartError | None = None
        self.running = 3
        self.fraction = 0.0
        self.stops: list[bool] = []
        self.reloads: list[str] = []
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    async def wait_ready(self) -> None:
        tasks = [asyncio.ensure_future(e.wait()) for e in (self.ready, self._stopping)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        if self.fault:
            raise self.fault

    async def wait_stop(self) -> bool:
        await self._ended.wait()
        return True

    def request_stop(self, now: bool = False) -> None:
        self.stops.append(now)
        self._stopping.set()
        if now or not self.running:
            self._ended.set()

    def reload_soon(self, why: str) -> None:
        self.reloads.append(why)

    def status(self) -> Any:
        state = "ready" if self.ready.is_set() else "loading"
        made = document(workers=[worker(state=state, loading_fraction=self.fraction)])
        made["requests"] |= {"running": self.running, "waiting": 0}
        return made


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (output has no event)
            await asyncio.sleep(0.01)


class Output:
    """What has been written so far, over all reads of pytest's capture."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.out = self.err = ""

    def has(self, *words: str) -> bool:
        out, err = self._capfd.readouterr()
        self.out += out
        self.err += err
        return all(word in self.out + self.err for word in words)


@pytest.fixture
def output(capfd: pytest.CaptureFixture[str]) -> Output:
    return Output(capfd)


async def test_progress_then_the_addresses_and_a_first_request(output: Output) -> None:
    front = FakeFront()
    serving = asyncio.create_task(Foreground(front, Config(), FOLDER, Terminal()).attend())
    await until(lambda: output.has("loading the model: 0%"))
    front.fraction = 0.5
    await until(lambda: output.has("loading the model: 50%"))
    front.ready.set()
    await until(lambda: output.has("Ctrl-C stops it"))
    assert output.has("http://127.0.0.1:8082", "SmolLM2-135M-Instruct.Q4_1", "CPU: A processor")
    assert output.has("curl http://127.0.0.1:8082/v1/chat")
    assert output.has(FOLDER.command("chat"))
    front.running = 0
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 60)
    assert front.stops == [False]
    await until(lambda: output.has("stopping when requests have ended"))
    assert not output.has("Ctrl-C again")


async def test_ctrl_c_drains_with_a_count_and_a_second_one_does_not_wait(output: Output) -> None:
    front = FakeFront()
    front.ready.set()
    serving = asyncio.create_task(Foreground(front, Config(), FOLDER, Terminal()).attend())
    await until(lambda: output.has("Ctrl-C stops it"))
    os.kill(os.getpid(), signal.SIGINT)
    await until(lambda: output.has("stopping: 3 requests running, 0 waiting (at most 30 s)"))
    assert output.has("Ctrl-C again: now")
    front.running = 1
    await until(lambda: output.has("stopping: 1 request running"))
    assert not serving.done()
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(serving, 60)
    assert front.stops == [False, True]


async def test_ctrl_c_while_loading_stops(output: Output) -> None:
    front = FakeFront()
    front.running = 0
    serving = asyncio.create_task(Foreground(front, Config(), FOLDER, Terminal()).attend())
    await until(lambda: output.has("loading the model"))
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(serving, 60)
    assert front.stops == [False]


async def test_a_model_that_cannot_be_loaded_ends_it_with_the_reason(output: Output) -> None:
    front = FakeFront()
    front.fault = StartError("the model is cut off")
    front.ready.set()
    with pytest.raises(StartError, match="cut off"):
        await asyncio.wait_for(Foreground(front, Config(), FOLDER, Terminal()).attend(), 60)


async def test_a_hang_up_without_a_closed_terminal_reloads(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = FakeFront()
    front.ready.set()
    monkeypatch.setattr(front_process, "_has_terminal", lambda: False)
    serving = asyncio.create_task(Foreground(front, Config(), FOLDER, Terminal()).attend())
    await until(lambda: output.has("Ctrl-C stops it"))
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: bool(front.reloads))
    assert front.stops == []
    os.kill(os.getpid(), signal.SIGQUIT)
    await asyncio.wait_for(serving, 60)


async def test_a_terminal_that_closes_drains_however_often_it_says_so(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = FakeFront()
    looks = iter([True])
    monkeypatch.setattr(front_process, "_has_terminal", lambda: next(looks, False))
    front.ready.set()
    serving = asyncio.create_task(Foreground(front, Config(), FOLDER, Terminal()).attend())
    await until(lambda: output.has("Ctrl-C stops it"))
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: output.has("stopping when requests have ended"))
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: output.has("3 requests running"))
    os.kill(os.getpid(), signal.SIGTERM)  # the first of those that count
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(serving, 60)
    assert front.stops == [False, True]
    assert front.reloads == []


async def test_sigquit_ends_at_once(output: Output) -> None:
    front = FakeFront()
    front.ready.set()
    serving = asyncio.create_task(Foreground(front, Config(), FOLDER, Terminal()).attend())
    await until(lambda: output.has("Ctrl-C stops it"))
    os.kill(os.getpid(), signal.SIGQUIT)
    await asyncio.wait_for(serving, 60)
    assert front.stops == [True]
    await until(lambda: output.has("stopping now"))
