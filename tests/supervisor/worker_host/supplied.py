"""A front's supply and a host's provision, joined by a connection in memory."""

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import cast

from gpufc.config import ModelConfig
from gpufc.ids import Epoch
from supervisor.cluster import wire
from supervisor.cluster.messages import (
    PIECE_BYTES,
    AskPiece,
    Forgo,
    FromHost,
    Lacking,
    NotObtained,
    Obtain,
    Obtained,
    Obtaining,
    Piece,
    ToHost,
    WantedModel,
)
from supervisor.cluster.port import HostChannel
from supervisor.downloads.checksums import Checksums
from supervisor.remote.supply import Supply, SupplyListener
from supervisor.worker_host.library import Library
from supervisor.worker_host.provision import Provision


class Apart(Library):
    """A machine on which nothing is at the front's paths."""

    def in_place(self, model: WantedModel) -> Path | None:
        return None


class Wire:
    """One host's end and its channel. Messages pass in later turns of the loop, as bytes."""

    def __init__(self, machine: str, supply: Supply, library: Library) -> None:
        self.machine = machine
        self.sent: list[ToHost] = []
        self.said: list[FromHost] = []
        self.lines: list[str] = []
        self.passes: Callable[[ToHost], bool] = lambda message: True
        """Whether a message of the front arrives."""
        self.change: Callable[[ToHost], ToHost] = lambda message: message
        self._supply = supply
        self.library = library
        self.provision = Provision(library, self.report, self.lines.append)

    @property
    def channel(self) -> HostChannel:
        return cast(HostChannel, self)

    def send(self, message: ToHost) -> None:
        self.sent.append(message)
        data = wire.control(message)
        asyncio.get_running_loop().call_soon(self._deliver, data)

    def report(self, message: FromHost) -> None:
        self.said.append(message)
        data = wire.control(message)
        asyncio.get_running_loop().call_soon(self._to_front, data)

    def _to_front(self, data: bytes) -> None:
        message = wire.decode_from_host(wire.split(data)[1])
        assert isinstance(message, Lacking | Obtaining | Obtained | NotObtained | AskPiece)
        self._supply.message(self.channel, message)

    def _deliver(self, data: bytes) -> None:
        message = wire.decode_to_host(wire.split(data)[1])
        if not self.passes(message):
            return
        match self.change(message):
            case Obtain() as wanted:
                self.provision.obtain(wanted)
            case Piece() as piece:
                self.provision.take(piece)
            case Forgo(epoch):
                self.provision.forgo(epoch)

    def pieces(self) -> list[AskPiece]:
        return [one for one in self.said if isinstance(one, AskPiece)]


class Outcome:
    """What a job's owner has heard."""

    def __init__(self) -> None:
        self.is_ready = False
        self.failure: str | None = None
        self.progress: list[str] = []
        self._over = asyncio.Event()

    def listener(self) -> SupplyListener:
        return SupplyListener(self._ready, self.progress.append, self._failed)

    def _ready(self) -> None:
        self.is_ready = True
        self._over.set()

    def _failed(self, text: str) -> None:
        self.failure = text
        self._over.set()

    async def over(self) -> "Outcome":
        async with asyncio.timeout(60):
            await self._over.wait()
        return self


class Bench:
    """A front with a folder of models."""

    def __init__(self, folder: Path, mirror: str = "") -> None:
        self.folder = folder
        self.models = folder / "front"
        self.models.mkdir()
        self.checksums = Checksums(folder / "sums.json")
        self.supply = Supply(self.checksums, mirror)
        self.wires: list[Wire] = []
        self._n = 0

    def host(self, name: str = "a", library: type[Library] = Apart) -> Wire:
        """A host whose own models folder has its name. Another call is the same machine again."""
        self.wires.append(Wire(name, self.supply, library(self.folder / name)))
        return self.wires[-1]

    def file(self, name: str, content: bytes) -> str:
        path = self.models / name
        path.write_bytes(content)
        return str(path)

    def begin(self, wire: Wire, config: ModelConfig) -> tuple[Epoch, Outcome]:
        """Have a host obtain a model."""
        self._n += 1
        outcome = Outcome()
        self.supply.begin(wire.channel, Epoch(self._n), config, outcome.listener())
        return Epoch(self._n), outcome

    async def obtained(self, wire: Wire, config: ModelConfig) -> ModelConfig:
        """The configuration with the host's paths, once it has the files."""
        epoch, outcome = self.begin(wire, config)
        await outcome.over()
        assert outcome.failure is None
        return wire.provision.here(epoch, config)

    async def failed(self, wire: Wire, config: ModelConfig) -> str:
        _, outcome = self.begin(wire, config)
        await outcome.over()
        assert outcome.failure is not None
        return outcome.failure

    def close(self) -> None:
        self.supply.close()
        for one in self.wires:
            one.provision.forgo_all()


BYTES = random.Random(1).randbytes(5 * PIECE_BYTES + 17)
OTHER = random.Random(2).randbytes(2 * PIECE_BYTES)


def model(bench: Bench, name: str = "m.gguf", content: bytes = BYTES) -> ModelConfig:
    return ModelConfig(model_path=bench.file(name, content))


def content(path: str | None) -> bytes:
    assert path is not None
    return Path(path).read_bytes()


def spoil(path: str | None) -> None:
    assert path is not None
    Path(path).write_bytes(BYTES[::-1])
    os.utime(path, ns=(1, 1))  # clocks of file systems tick slowly


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - a thread and the loop are all that it waits for
            await asyncio.sleep(0.002)


def done(host: Wire, epoch: Epoch) -> dict[int, int]:
    """The bytes of each part that a job has by now."""
    job = host.provision._jobs.get(epoch)
    return dict(job.done) if job is not None else {}


def files(host: Wire) -> list[str]:
    return sorted(path.name for path in host.library.folder.rglob("*") if path.is_file())
