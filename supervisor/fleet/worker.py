"""The specification of a place's worker, and a ready process as the rest of the front sees it."""

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec
from msgspec import Struct

from gpufc.config import ModelConfig
from gpufc.facts import ModelFacts
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import Boot, ExportKv, Generate, ImportKv, KvMoved, ToWorker
from supervisor.fleet import events as ev
from supervisor.fleet.crash_record import CrashRecord
from supervisor.fleet.edge import Link
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.observation import Observation


class WorkerSpec(Struct, frozen=True):
    """The specification of a place's worker. It outlives single processes.

    `config` is that of its `replica`, counted from 0: with the devices of this one only.
    """

    name: WorkerName
    model: str
    config: ModelConfig
    n_sequences: int
    log_level: str
    log_format: str = "plain"
    replica: int = 0
    is_remote: bool = False
    """Its processes run on machines that have joined."""
    within: tuple[str, ...] = ()
    """The folders and files of this machine that the model's files must lie in, by real paths. Of a
    model that was named over HTTP; empty for one that the operator has named."""

    def boot(
        self,
        epoch: Epoch,
        endpoint: str,
        token: str,
        device_limit_bytes: int | None = None,
        *,
        is_awaited: bool = False,
    ) -> Boot:
        """The boot message of a process. The limit is of this machine's GPUs. `is_awaited`:
        requests wait for the process."""
        return Boot(
            epoch=epoch,
            worker=self.name,
            endpoint=endpoint,
            token=token,
            model=self.config,
            n_sequences=self.n_sequences,
            log_level=self.log_level,
            log_format=self.log_format,
            within=() if self.is_remote else self.within,
            device_limit_bytes=None if self.is_remote else device_limit_bytes,
            is_awaited=is_awaited,
        )


def of_replica(config: ModelConfig, replica: int) -> ModelConfig:
    """A model's configuration as one of its replicas has it. Replicas take the groups of `devices`
    in turn."""
    if config.devices is None:
        return config
    groups = config.devices.split(";")
    return msgspec.structs.replace(config, devices=groups[replica % len(groups)].strip())


class Hooks(Struct, frozen=True):
    """A runner's callbacks, apart from its listener. They must not block or raise."""

    restarted: Callable[[Reason], None] = lambda reason: None
    """A process is started after one that ended for this reason."""
    became_ready: Callable[[bool], None] = lambda is_first: None
    """Its process serves now; `is_first`: it replaces none."""
    crashed: Callable[[CrashRecord], None] = lambda record: None
    """A process ended unasked."""
    drained: Callable[[], None] = lambda: None
    """No stream needs this line of processes any more."""


class Worker:
    """A ready process, as the listener sees it (`port.WorkerHandle`)."""

    def __init__(
        self,
        spec: WorkerSpec,
        line: int,
        epoch: Epoch,
        facts: ModelFacts,
        link: Link,
        seen: Observation,
        post: Callable[[ev.Event], None],
        drained: Callable[[], None],
        machine: str | None = None,
    ) -> None:
        self.name = spec.name
        self.epoch = epoch
        self.model = spec.model
        self.line = line
        self.machine = machine
        self.facts = facts
        self._link = link
        self._seen = seen
        self._post = post
        self._drained = drained
        self._kv_moves: deque[asyncio.Future[KvMoved]] = deque()

    def send(self, message: ToWorker) -> None:
        """Implements the port."""
        self._link.send(message)
        if isinstance(message, Generate):
            self._seen.handed_work(message)

    def drained(self) -> None:
        self._drained()

    def explain_deaths(self, count: int) -> None:
        self._post(ev.DeathsExplained(count))

    def move_kv(self, message: ExportKv | ImportKv) -> asyncio.Future[KvMoved]:
        """Implements `kv_handover.KvWorker`. The worker answers in the order of the calls."""
        answer: asyncio.Future[KvMoved] = asyncio.get_running_loop().create_future()
        self._kv_moves.append(answer)
        self._link.send(message)
        return answer

    def kv_moved(self, message: KvMoved) -> None:
        """The worker's answer to the oldest `move_kv`."""
        if self._kv_moves:
            answer = self._kv_moves.popleft()
            if not answer.done():  # the caller may have waited long enough
                answer.set_result(message)

    def lost(self, reason: str) -> None:
        """Answer every `move_kv` that is open."""
        while self._kv_moves:
            self.kv_moved(KvMoved(self.epoch, 0, 0, 0, 0.0, error=reason))

    def __repr__(self) -> str:
        return f"Worker({self.name}, epoch={self.epoch})"
