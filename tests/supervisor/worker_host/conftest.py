"""A worker host as a real process, and a scripted front that it dials."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from gpufc import wire as worker_wire
from gpufc.config import BackendKind, ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo, WorkerName
from gpufc.protocol import (
    Boot,
    Generate,
    Hello,
    Message,
    Ready,
    Shutdown,
    Step,
)
from gpufc.sampling import SamplingParams
from supervisor.cluster.book import HostBook
from supervisor.cluster.join import write_join_file
from supervisor.cluster.listener import HostListener, Limits
from supervisor.cluster.messages import Spawn
from tests.supervisor.cluster.hosts import Recorder
from tests.supervisor.worker_host.supplied import Bench

TOKEN = "t" * 32


class Front:
    """A listener with its book, and the messages that came. `restart` is another front of the same
    address and book."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._endpoint = "tcp://127.0.0.1:0"
        self._open()

    def _open(self) -> None:
        self.hosts = Recorder()
        self.book = HostBook(self._folder / "hosts.json")
        self.listener = HostListener(self.book, self.hosts, self._endpoint, self._limits)
        self._endpoint = self.listener.endpoint

    @property
    def address(self) -> str:
        return self._endpoint.removeprefix("tcp://")

    def invite(self, uses: int = 1) -> Path:
        path = self._folder / "join"
        write_join_file(path, self.address, self.book.front.public, self.book.invite(uses))
        return path

    def close(self) -> None:
        self.listener.close()

    def restart(self) -> None:
        self.close()
        self._open()

    def spawn(self, epoch: int, *, backend: BackendKind = BackendKind.FAKE) -> None:
        model = ModelConfig(model_path="fake", model="fake", backend=backend, n_ctx=512)
        self.hosts.listen(epoch)
        boot = Boot(Epoch(epoch), WorkerName(f"fake-{epoch}"), "", TOKEN, model, 4)
        self.hosts.channel.send(Spawn(boot))

    def send(self, epoch: int, message: Message) -> None:
        self.hosts.channel.send_frame(Epoch(epoch), worker_wire.encode(message))

    def of_worker(self, epoch: int) -> list[Message]:
        frames = self.hosts.frames.get(Epoch(epoch), [])
        return [worker_wire.decode_from_worker(frame) for frame in frames]

    async def until_ready(self, epoch: int) -> Hello:
        """Wait for a worker's ready. Returns its hello."""

        def is_ready() -> bool:
            return any(isinstance(one, Ready) for one in self.of_worker(epoch))

        await self.hosts.until(is_ready)
        hello = self.of_worker(epoch)[0]
        assert isinstance(hello, Hello)
        return hello

    def generate(self, epoch: int, number: int = 1, n_tokens: int = 8) -> None:
        self.send(
            epoch,
            Generate(
                Epoch(epoch),
                RequestNo(number),
                RequestId("r"),
                0,
                (1, 2, 3),
                SamplingParams(seed=1),
                n_tokens,
            ),
        )

    def tokens(self, epoch: int, number: int = 1) -> tuple[int, ...]:
        return tuple(
            token
            for step in self.of_worker(epoch)
            if isinstance(step, Step)
            for delta in step.deltas
            if delta.request == number
            for token in delta.tokens
        )

    def is_finished(self, epoch: int, number: int = 1) -> bool:
        return any(
            delta.request == number and delta.finish
            for step in self.of_worker(epoch)
            if isinstance(step, Step)
            for delta in step.deltas
        )

    def shutdown(self, epoch: int) -> None:
        self.send(epoch, Shutdown(Epoch(epoch)))


@pytest.fixture
async def make_front(tmp_path: Path) -> AsyncIterator[Callable[..., Front]]:
    made: list[Front] = []

    def make(limits: Limits = Limits(), folder: str = "front") -> Front:  # noqa: B008
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        made.append(Front(path, limits))
        return made[-1]

    yield make
    for front in made:
        front.close()


@pytest.fixture
async def front(make_front: Callable[..., Front]) -> Front:
    return make_front()


class HostProcess:
    """A running `gpufc-supervisor host`."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self._output.read_text()

    def workers(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []

    async def says(self, text: str, timeout_s: float = 60.0) -> None:
        """Wait for a text on its terminal."""
        async with asyncio.timeout(timeout_s):
            while text not in self.output:  # noqa: ASYNC110 - a file wakes no task
                await asyncio.sleep(0.02)

    async def ended(self, timeout_s: float = 60.0) -> int:
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()


StartHost = Callable[..., "asyncio.Future[HostProcess]"]


@pytest.fixture
async def start_host(tmp_path: Path) -> AsyncIterator[StartHost]:
    started: list[HostProcess] = []

    async def start(join: Path | None, *options: str, key: str = "host.json") -> HostProcess:
        number = len(started)
        output = tmp_path / f"host-{number}.txt"
        command = [
            *(sys.executable, "-m", "supervisor.cli", "host"),
            *("--key-file", str(tmp_path / key), "--runtime-dir", str(tmp_path / f"h{number}")),
            *(("--join-file", str(join)) if join else ()),
            *("--name", "node", *options),
        ]
        with output.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=file, stderr=file, env=os.environ
            )
        started.append(HostProcess(process, output))
        return started[-1]

    yield start
    for host in started:
        if host.process.returncode is None:
            host.process.send_signal(signal.SIGKILL)
            await host.process.wait()


async def gone(processes: list[psutil.Process], timeout_s: float = 60.0) -> None:
    """Wait until none of these processes runs."""
    async with asyncio.timeout(timeout_s):
        while any(map(_runs, processes)):  # noqa: ASYNC110 - not our children
            await asyncio.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()
