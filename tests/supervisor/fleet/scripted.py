"""Workers that load, answer and fail as the model in their boot message says. No processes."""

import asyncio
import itertools
import random
from collections.abc import Callable

import msgspec
from msgspec import Struct

from gpufc.config import ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo, WorkerName
from gpufc.packed import packed
from gpufc.protocol import (
    Boot,
    Delta,
    EngineFailed,
    ExportKv,
    FinishReason,
    FromWorker,
    Generate,
    Hello,
    ImportKv,
    KvMoved,
    LoadFailed,
    Loading,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Shutdown,
    Step,
    ToWorker,
)
from gpufc.sampling import SamplingParams
from supervisor.fleet.edge import ExitListener
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.kept_kv import KeptKv
from supervisor.fleet.ladder import Timings
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.peer import BrokenListener, MessageListener
from supervisor.fleet.place import Place
from supervisor.fleet.port import FleetListener, ModelChange, Replacement, ReplacementStage
from supervisor.fleet.replacer import Replacer
from supervisor.fleet.restart_policy import RestartPolicy
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.worker import Hooks, WorkerSpec
from tests.fakes.facts import model_facts
from tests.supervisor.fleet.conftest import Recorder
from tests.supervisor.fleet.fake_edge import KILLED, FakeEdge, FakeLink, FakeProcess

ENDED = ExitReason(code=0, reason=Reason.EXITED, at=2.0)
OUT_OF_MEMORY = ExitReason(signal=9, reason=Reason.OUT_OF_MEMORY, at=2.0)


class Script(Struct, frozen=True):
    """What a model's worker does. `loads` are the ends of its first loads, None for a good one;
    those after them are good. `trial` is the answer to `Generate`: a token for each letter."""

    fingerprint: str = "fake"
    n_ctx: int | None = None
    loads: tuple[LoadFailed | ExitReason | None, ...] = ()
    is_slow: bool = False
    trial: FromWorker | ExitReason | str | None = "12345678"
    dies_in_handover: bool = False
    bytes_by_device: dict[str, int] = {}


def memory_short(needed: int, available: int = 0) -> LoadFailed:
    return LoadFailed(Epoch(0), "not enough memory", True, needed, available)


BROKEN = LoadFailed(Epoch(0), "the file is cut off", retryable=False)


class Scripted(FakeEdge):
    """An `Edge` whose processes act by themselves, in the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: dict[str, Script] = {}
        self.booted: list[Boot] = []
        self.log: list[str] = []
        """What workers were told, without trials: `export 1`, `import 2`, `shutdown 1`."""
        self._n_loads: dict[str, int] = {}

    def open_link(
        self, epoch: Epoch, token: str, *, on_message: MessageListener, on_broken: BrokenListener
    ) -> FakeLink:
        link = super().open_link(epoch, token, on_message=on_message, on_broken=on_broken)
        link.send = lambda message: self._told(link, message)  # type: ignore[method-assign]
        return link

    def spawn(
        self, worker: WorkerName, on_exit: ExitListener, on_ending: ExitListener
    ) -> FakeProcess:
        process = super().spawn(worker, on_exit, on_ending)
        process.boot = self._boot  # type: ignore[method-assign]
        return process

    def process_of(self, epoch: int) -> FakeProcess:
        return self.processes[self._index(epoch)]

    def script_of(self, epoch: int) -> Script:
        return self.scripts.get(self.booted[self._index(epoch)].model.model_path or "", Script())

    def finish_load(self, epoch: int) -> None:
        """Let a slow one be ready."""
        self._ready(epoch)

    def _index(self, epoch: int) -> int:
        return next(i for i, link in enumerate(self.links) if link.epoch == epoch)

    def _boot(self, boot: Boot) -> None:
        self.booted.append(boot)
        asyncio.get_running_loop().call_soon(self._load, boot)

    def _load(self, boot: Boot) -> None:
        epoch, path = boot.epoch, boot.model.model_path or ""
        link, script = self.links[self._index(epoch)], self.script_of(epoch)
        link.say(Hello(epoch, 1, "", 0))
        link.say(Loading(epoch, 0.5))
        number = self._n_loads[path] = self._n_loads.get(path, 0) + 1
        end = script.loads[number - 1] if number <= len(script.loads) else None
        match end:
            case LoadFailed():
                link.say(msgspec.structs.replace(end, epoch=epoch))
            case ExitReason():
                self.process_of(epoch).exit(end)
            case None if not script.is_slow:
                # a while later, so that the progress is seen
                asyncio.get_running_loop().call_later(0.001, self._ready, epoch)

    def _ready(self, epoch: int) -> None:
        boot, script = self.booted[self._index(epoch)], self.script_of(epoch)
        n_ctx = script.n_ctx or boot.model.n_ctx
        facts = model_facts(
            fingerprint=script.fingerprint, n_ctx=n_ctx, bytes_by_device=script.bytes_by_device
        )
        self.links[self._index(epoch)].say(Ready(Epoch(epoch), facts, loaded_in_s=0.01))

    def _told(self, link: FakeLink, message: ToWorker) -> None:
        link.sent.append(message)
        epoch = link.epoch
        match message:
            case Prepare():
                link.say(Prepared(epoch, message.request, packed((1, 2))))
            case Generate() if message.request == 0:
                # a while later, so that the trial is seen
                loop = asyncio.get_running_loop()
                loop.call_later(0.001, self._answer, link, self.script_of(epoch))
            case Shutdown():
                self.log.append(f"shutdown {epoch}")
                self.process_of(epoch).exit(ENDED)
            case ExportKv() | ImportKv():
                word = "export" if isinstance(message, ExportKv) else "import"
                self.log.append(f"{word} {epoch}")
                if word == "import" and self.script_of(epoch).dies_in_handover:
                    self.process_of(epoch).exit(KILLED)
                    return
                link.say(KvMoved(epoch, 1, 2, 3, 0.0))
            case _:
                pass

    def _answer(self, link: FakeLink, script: Script) -> None:
        match script.trial:
            case str(letters):
                for i, letter in enumerate(letters):
                    is_last = i == len(letters) - 1
                    finish = FinishReason.LENGTH if is_last else None
                    delta = Delta(RequestNo(0), i, (ord(letter),), letter, finish)
                    link.say(Step(link.epoch, i, (delta,)))
            case ExitReason() as end:
                self.process_of(link.epoch).exit(end)
            case Refused() | EngineFailed() as message:
                link.say(msgspec.structs.replace(message, epoch=link.epoch))
            case _:
                pass


class Bench:
    """A place with its replacer over scripted workers. `start` brings the first one up."""

    def __init__(
        self,
        *,
        n_ctx: int = 512,
        handover_kv_bytes: int = 1 << 20,
        model_path: str = "/old",
        kept: KeptKv | None = None,
    ) -> None:
        self.edge = Scripted()
        self.listener = Recorder()
        self.restarts: list[Reason] = []
        self.told: list[Replacement] = []
        self.timings = Timings()
        self._epochs = itertools.count(1)
        spec = WorkerSpec(
            name=WorkerName("default-0"),
            model="m",
            config=ModelConfig(model_path=model_path, n_ctx=n_ctx),
            n_sequences=4,
            log_level="info",
        )
        self.place = Place(spec, self._runner, lambda: self.listener, lambda is_first: None, kept)
        self.replacer = Replacer(
            self.place, self.restarts.append, handover_kv_bytes=handover_kv_bytes
        )

    def _runner(
        self, spec: WorkerSpec, heard: FleetListener, drained: Callable[[], None]
    ) -> WorkerRunner:
        policy = RestartPolicy(100, random.Random(1))
        life = WorkerLifecycle(policy, self.timings, lambda: Epoch(next(self._epochs)))
        return WorkerRunner(spec, life, self.edge, heard, Hooks(drained=drained))

    @property
    def calls(self) -> list[str]:
        return self.listener.calls

    @property
    def stages(self) -> list[ReplacementStage]:
        """What was told, repetitions left out."""
        return [stage for stage, _ in itertools.groupby(told.stage for told in self.told)]

    async def start(self) -> None:
        self.place.start()
        await self.until("ready 1")

    async def until(self, call: str) -> None:
        await self.listener.until(lambda: call in self.calls, 5.0)

    async def until_changed(self, holds: Callable[[], object]) -> None:
        """Wait for a condition of the place."""
        async with asyncio.timeout(60):
            while not holds():
                await self.place.wait_changed(self.place.n_changes)

    async def restart(self, *, now: bool = False) -> None:
        async with asyncio.timeout(60):
            await self.replacer.restart(now=now, tell=self.told.append)

    async def swap(self, path: str = "/new", **change: int) -> None:
        async with asyncio.timeout(60):
            await self.replacer.swap(ModelChange(model_path=path, **change), tell=self.told.append)

    async def close(self) -> None:
        self.place.request_stop(now=True)
        async with asyncio.timeout(60):
            await self.place.wait_stopped()
        await self.place.close()


def generate(epoch: int, request: int = 1) -> Generate:
    """A request of a client's."""
    sampling = SamplingParams(seed=1)
    return Generate(Epoch(epoch), RequestNo(request), RequestId("r"), 0, (1,), sampling)
