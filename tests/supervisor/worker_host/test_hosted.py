"""One worker of a host, in this process: its end is told before its memory is back."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpufc import end_word
from gpufc.config import BackendKind, ModelConfig
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import Boot
from gpufc.wire import Buffer
from supervisor.cluster.messages import Ending, Exited, FromHost
from supervisor.runtime_dir import RuntimeDir
from supervisor.worker_host.hosted import Front, HostedWorker
from supervisor.worker_host.machine import Machine
from tests.supervisor.reaping import not_reaped

EPOCH = Epoch(3)


class Hosting:
    """A worker, and what its front is told."""

    def __init__(self, folder: Path) -> None:
        self.told: list[FromHost] = []
        self._news = asyncio.Event()
        self.machine = Machine(RuntimeDir.acquire(str(folder)))
        model = ModelConfig(backend=BackendKind.FAKE)
        boot = Boot(EPOCH, WorkerName("fake-0"), "", "token", model, 4)
        front = Front(self._report, self._relay)
        self.worker = HostedWorker(self.machine, boot, model, front, lambda _worker, _how: None)

    def _report(self, message: FromHost) -> None:
        self.told.append(message)
        self._news.set()

    def _relay(self, _data: Buffer) -> None:
        self._news.set()

    async def until_ready(self) -> None:
        async with asyncio.timeout(60):
            while not self.worker.is_ready:
                self._news.clear()
                await self._news.wait()

    async def until(self, kind: type[FromHost]) -> None:
        async with asyncio.timeout(60):
            while not any(isinstance(message, kind) for message in self.told):
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def hosting(tmp_path: Path) -> AsyncIterator[Hosting]:
    made = Hosting(tmp_path / "run")
    yield made
    if not any(isinstance(message, Exited) for message in made.told):
        made.worker.kill()
        await made.until(Exited)
    made.machine.close()


@pytest.mark.skipif(not end_word.is_supported(), reason="no glibc on a known processor")
async def test_the_beginning_of_an_end_is_reported_before_it(hosting: Hosting) -> None:
    await hosting.until_ready()
    with not_reaped(hosting.worker._process):
        hosting.worker.signal(signal.SIGKILL, group=False)
        await hosting.until(Ending)
    assert hosting.told[0] == Ending(EPOCH, os.CLD_KILLED, signal.SIGKILL, False)
    assert [type(message) for message in hosting.told] == [Ending, Exited]
